//! `tributary.v1.Tokens`: bake, list and revoke tokens.

use std::sync::Arc;

use proto::v1;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::auth::Caller;
use super::convert::{exact, idempotency_key, known, node_id};
use super::methods::any_method;
use super::mutation::{once, to_the_end};
use super::page::{self, List};
use super::server::{Door, RpcParts};
use super::status::{Reason, Refusal};
use crate::tokens::{
    MethodPattern, Restriction, RevokeError, Revoking, Role, Token, TokenId, TokenView,
};

/// Longest name, in bytes.
const NAME_LEN_MAX: usize = 64;

/// The service.
pub(super) struct TokensService {
    door: Door,
}

impl TokensService {
    pub(super) fn new(door: Door) -> Self {
        Self { door }
    }
}

#[tonic::async_trait]
impl v1::tokens_server::Tokens for TokensService {
    async fn bake_token(
        &self,
        request: Request<v1::BakeTokenRequest>,
    ) -> Result<Response<v1::BakeTokenResponse>, Status> {
        let caller = Caller::of(&request)?;
        if !caller.is_unrestricted() {
            let message = "a token with restrictions makes no others";
            return Err(Refusal::new(Reason::BakeDenied, message).into());
        }
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let key = idempotency_key("BakeToken", &request.idempotency_key)?;
        if request.name.len() > NAME_LEN_MAX || request.name.contains(char::is_control) {
            let problem = format_args!("has more than {NAME_LEN_MAX} bytes, or control characters");
            return Err(Refusal::field("name", problem).into());
        }
        let restrictions = restrictions(request.restrictions.unwrap_or_default())?;
        let shared = Arc::clone(&parts);
        let baked = to_the_end(&parts.tasks, async move {
            Ok(shared.tokens.bake(&request.name, restrictions, Some(&key)).await?)
        })
        .await?;
        Ok(Response::new(v1::BakeTokenResponse {
            token: Some(token(&baked.view)),
            text: baked.token.reveal().to_string(),
        }))
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let size = page::size(request.page_size)?;
        let from = page::position(List::Tokens, &(), request.page_token.as_deref())?;
        let after = page::own_position(from)?.map(TokenId);
        let mut views = parts.tokens.list(after, size + 1).map_err(Refusal::from)?;
        let more = views.len() > size;
        views.truncate(size);
        let last = views.last().filter(|_| more);
        let next_page_token = last.map(|view| page::token(List::Tokens, &(), &view.id.0));
        let tokens = views.iter().map(token).collect();
        Ok(Response::new(v1::ListTokensResponse { tokens, next_page_token }))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::Token>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let key = idempotency_key("RevokeToken", &request.idempotency_key)?;
        let (which, id) = revoking(&request)?;
        let (shared, looks) = (Arc::clone(&parts), Arc::clone(&parts));
        let work = async move { Ok(shared.tokens.revoke(&which).await?) };
        let again = async move { look_up(&looks, id) };
        let view = once(&parts, key, &request, work, again).await?;
        Ok(Response::new(token(&view)))
    }
}

fn revoking(request: &v1::RevokeTokenRequest) -> Result<(Revoking, TokenId), Refusal> {
    use v1::revoke_token_request::Which;
    match &request.which {
        None => Err(Refusal::field("which", "is missing; give token_id or text")),
        Some(Which::TokenId(id)) => {
            let id = exact(Reason::FieldInvalid, "token_id", id).map(TokenId)?;
            Ok((Revoking::Baked(id), id))
        }
        Some(Which::Text(text)) => {
            let read = Token::parse(text).map_err(|_| Refusal::from(RevokeError::NotOurs))?;
            Ok((Revoking::Text(Zeroizing::new(text.clone())), read.id()))
        }
    }
}

fn look_up(parts: &RpcParts, id: TokenId) -> Result<TokenView, Refusal> {
    let found = parts.tokens.get(id)?;
    found.ok_or_else(|| Refusal::from(RevokeError::Unknown(id)))
}

fn restrictions(asked: v1::TokenRestrictions) -> Result<Vec<Restriction>, Refusal> {
    let mut read = Vec::new();
    if asked.role != 0 {
        read.push(Restriction::Role(role(known("role", asked.role)?)?));
    }
    let patterns = asked.methods.iter().map(|text| pattern(text));
    let patterns = patterns.collect::<Result<Vec<_>, _>>()?;
    if !patterns.is_empty() {
        read.push(Restriction::Methods(patterns));
    }
    read.extend(asked.per_call_max_msat.map(Restriction::PerCall));
    // The id, drawn at random, tells the budgets of two baked tokens apart.
    read.extend(asked.budget_msat.map(|msat| Restriction::Budget { msat, nonce: [0; 8] }));
    let payees = asked.payee_node_ids.iter().map(|id| node_id("payee_node_ids", id));
    let payees = payees.collect::<Result<Vec<_>, _>>()?;
    if !payees.is_empty() {
        read.push(Restriction::Payees(payees));
    }
    read.extend(asked.expires_unix_seconds.map(Restriction::Expires));
    let sources = asked.sources.iter().map(|text| {
        text.parse().map_err(|error| Refusal::field("sources", format_args!("holds {error}")))
    });
    let sources = sources.collect::<Result<Vec<_>, _>>()?;
    if !sources.is_empty() {
        read.push(Restriction::Sources(sources));
    }
    Ok(read)
}

/// Reads a pattern that means at least one method.
fn pattern(text: &str) -> Result<MethodPattern, Refusal> {
    let refuse = |problem: &dyn std::fmt::Display| Refusal::field("methods", problem);
    let pattern: MethodPattern =
        text.parse().map_err(|error| refuse(&format_args!("holds {error}")))?;
    if !any_method(|name| pattern.matches(name)) {
        return Err(refuse(&format_args!("holds {text:?}, which is no method of this node")));
    }
    Ok(pattern)
}

fn role(role: v1::TokenRole) -> Result<Role, Refusal> {
    Ok(match role {
        v1::TokenRole::Admin => Role::Admin,
        v1::TokenRole::Operator => Role::Operator,
        v1::TokenRole::Payer => Role::Payer,
        v1::TokenRole::Receiver => Role::Receiver,
        v1::TokenRole::ReadOnly => Role::ReadOnly,
        v1::TokenRole::Auditor => Role::Auditor,
        v1::TokenRole::Unspecified => return Err(Refusal::field("role", "is unspecified")),
    })
}

fn role_view(role: Role) -> v1::TokenRole {
    match role {
        Role::Admin => v1::TokenRole::Admin,
        Role::Operator => v1::TokenRole::Operator,
        Role::Payer => v1::TokenRole::Payer,
        Role::Receiver => v1::TokenRole::Receiver,
        Role::ReadOnly => v1::TokenRole::ReadOnly,
        Role::Auditor => v1::TokenRole::Auditor,
    }
}

fn token(view: &TokenView) -> v1::Token {
    let account = view.budget.map(|(_, account)| account);
    v1::Token {
        token_id: view.id.0.to_vec(),
        name: view.name.clone(),
        restrictions: Some(restrictions_view(&view.restrictions)),
        baked_unix_ms: view.created_ms,
        revoked_unix_ms: view.revoked_ms,
        budget_spent_msat: account.map(|account| account.spent_msat),
        budget_reserved_msat: account.map(|account| account.reserved_msat),
        budget_left_msat: view.budget.map(|(budget, account)| account.left_msat(budget)),
    }
}

/// Writes what a token was baked with: each kind once, as it was asked for.
fn restrictions_view(restrictions: &[Restriction]) -> v1::TokenRestrictions {
    let mut view = v1::TokenRestrictions::default();
    for restriction in restrictions {
        match restriction {
            Restriction::Role(role) => view.role = role_view(*role).into(),
            Restriction::Methods(patterns) => {
                view.methods = patterns.iter().map(ToString::to_string).collect();
            }
            Restriction::PerCall(msat) => view.per_call_max_msat = Some(*msat),
            Restriction::Budget { msat, .. } => view.budget_msat = Some(*msat),
            Restriction::Payees(payees) => {
                view.payee_node_ids = payees.iter().map(|id| id.serialize().to_vec()).collect();
            }
            Restriction::Expires(seconds) => view.expires_unix_seconds = Some(*seconds),
            Restriction::Sources(ranges) => {
                view.sources = ranges.iter().map(ToString::to_string).collect();
            }
        }
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> v1::TokenRestrictions {
        let key = bitcoin::secp256k1::SecretKey::from_slice(&[3; 32]).unwrap();
        let node = key.public_key(&bitcoin::secp256k1::Secp256k1::new());
        v1::TokenRestrictions {
            role: v1::TokenRole::Payer.into(),
            methods: vec!["tributary.v1.Payments/*".into()],
            per_call_max_msat: Some(5),
            budget_msat: Some(0),
            payee_node_ids: vec![node.serialize().to_vec()],
            expires_unix_seconds: Some(9),
            sources: vec!["10.0.0.0/8".into()],
        }
    }

    #[test]
    fn restrictions_are_shown_as_they_were_asked_for() {
        assert_eq!(restrictions_view(&restrictions(asked()).unwrap()), asked());
        let none = v1::TokenRestrictions::default();
        assert_eq!(restrictions(none.clone()).unwrap(), []);
        assert_eq!(restrictions_view(&[]), none);
        for role in Role::ALL {
            assert_eq!(super::role(role_view(role)), Ok(role));
        }
    }

    #[test]
    fn odd_restrictions_are_refused_by_their_field() {
        for odd in [
            v1::TokenRestrictions { role: 99, ..asked() },
            v1::TokenRestrictions { methods: vec!["Payments".into()], ..asked() },
            v1::TokenRestrictions { methods: vec!["Payments/Pey".into()], ..asked() },
            v1::TokenRestrictions { methods: vec![String::new()], ..asked() },
            v1::TokenRestrictions { sources: vec!["10.0.0.0/99".into()], ..asked() },
        ] {
            let refusal = restrictions(odd).unwrap_err();
            assert_eq!(refusal.reason(), Reason::FieldInvalid, "{refusal}");
        }
        let odd = v1::TokenRestrictions { payee_node_ids: vec![vec![2; 32]], ..asked() };
        assert_eq!(restrictions(odd).unwrap_err().reason(), Reason::NodeIdInvalid);
    }
}
