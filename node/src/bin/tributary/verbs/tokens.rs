//! `token bake`, `list`, `revoke`, and without a node `narrow` and `inspect`.

use std::io::Read;
use std::path::Path;

use node::environment::{Clock, Entropy, OsEntropy, SystemClock};
use node::lightning::types::NodeId as NodeKey;
use node::tokens::{Restriction, Role, Token};
use proto::v1::{
    BakeTokenRequest, ListTokensRequest, ListTokensResponse, RevokeTokenRequest, TokenRestrictions,
    TokenRole, revoke_token_request,
};
use serde_json::json;
use zeroize::Zeroizing;

use super::{money, note_cut, pages};
use crate::args::ListArgs;
use crate::args::token::{
    RestrictionArgs, TokenBakeArgs, TokenNarrowArgs, TokenRevokeArgs, TokenVerb,
};
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, token};

/// Runs what needs no node; `None` if `verb` needs one.
pub fn without_a_node(verb: &TokenVerb, out: Output) -> Option<Result<(), CliError>> {
    match verb {
        TokenVerb::Narrow(args) => Some(narrow(out, args)),
        TokenVerb::Inspect { file } => Some(inspect(out, file)),
        TokenVerb::Bake(_) | TokenVerb::List(_) | TokenVerb::Revoke(_) => None,
    }
}

pub async fn run(verb: TokenVerb, client: &Client, out: Output) -> Result<(), CliError> {
    match verb {
        TokenVerb::Bake(args) => bake(client, out, args).await,
        TokenVerb::List(args) => list(client, out, &args).await,
        TokenVerb::Revoke(args) => revoke(client, out, args).await,
        TokenVerb::Narrow(_) | TokenVerb::Inspect { .. } => {
            unreachable!("they are done before a node is dialled")
        }
    }
}

async fn bake(client: &Client, out: Output, args: TokenBakeArgs) -> Result<(), CliError> {
    let key = args.mutation.key();
    let request = BakeTokenRequest {
        idempotency_key: key.clone(),
        name: args.name,
        restrictions: Some(asked(&args.restrictions, SystemClock.now().as_secs())),
    };
    let baked = money(client.tokens().bake_token(request).await, &key)?;
    out.answer(&baked, |baked| baked.text.clone())
}

fn asked(args: &RestrictionArgs, now_seconds: u64) -> TokenRestrictions {
    let role = args.role.map_or(TokenRole::Unspecified, |role| match role {
        Role::Admin => TokenRole::Admin,
        Role::Operator => TokenRole::Operator,
        Role::Payer => TokenRole::Payer,
        Role::Receiver => TokenRole::Receiver,
        Role::ReadOnly => TokenRole::ReadOnly,
        Role::Auditor => TokenRole::Auditor,
    });
    TokenRestrictions {
        role: role.into(),
        methods: args.method.iter().map(ToString::to_string).collect(),
        per_call_max_msat: args.max_per_call.map(|amount| amount.0),
        budget_msat: args.budget.map(|amount| amount.0),
        payee_node_ids: args.payee.iter().map(|id| id.0.to_vec()).collect(),
        expires_unix_seconds: args.expires_in.map(|seconds| now_seconds.saturating_add(seconds)),
        sources: args.source.iter().map(ToString::to_string).collect(),
    }
}

async fn list(client: &Client, out: Output, args: &ListArgs) -> Result<(), CliError> {
    let (tokens, next_page_token) = pages(args.limit, |size, token| {
        let mut service = client.tokens();
        let request = ListTokensRequest { page_size: Some(size), page_token: token };
        async move {
            let page = service.list_tokens(request).await?.into_inner();
            Ok((page.tokens, page.next_page_token))
        }
    })
    .await?;
    let response = ListTokensResponse { tokens, next_page_token };
    out.answer(&response, |response| token::list(&response.tokens))?;
    note_cut(out, &response.next_page_token);
    Ok(())
}

async fn revoke(client: &Client, out: Output, args: TokenRevokeArgs) -> Result<(), CliError> {
    let key = args.mutation.key();
    let which = match (args.token_id, &args.file) {
        (Some(id), _) => revoke_token_request::Which::TokenId(id.into()),
        (None, Some(file)) => revoke_token_request::Which::Text(read(file)?.reveal().to_string()),
        (None, None) => return Err(CliError::Usage("say which token: its id, or --file".into())),
    };
    let request = RevokeTokenRequest { idempotency_key: key.clone(), which: Some(which) };
    let revoked = money(client.tokens().revoke_token(request).await, &key)?;
    out.answer(&revoked, |_| "revoked; its streams end, and what it began goes on".into())
}

fn narrow(out: Output, args: &TokenNarrowArgs) -> Result<(), CliError> {
    let entropy: &dyn Entropy = &OsEntropy;
    let now_seconds = SystemClock.now().as_secs();
    let added = added(&args.restrictions, now_seconds, entropy.bytes())?;
    if added.is_empty() {
        return Err(CliError::Usage(
            "say what to restrict; see `tributary token narrow --help`".into(),
        ));
    }
    let narrowed = added.into_iter().try_fold(read(&args.file)?, Token::narrowed);
    let narrowed = narrowed.map_err(|error| CliError::Failed(error.to_string()))?;
    let text = narrowed.reveal();
    match out.is_json() {
        true => out.document(&json!({ "text": *text }), true),
        false => out.text(&text),
    }
}

/// The restrictions that `args` asks for.
fn added(
    args: &RestrictionArgs,
    now_seconds: u64,
    nonce: [u8; 8],
) -> Result<Vec<Restriction>, CliError> {
    let mut added = Vec::new();
    added.extend(args.role.map(Restriction::Role));
    if !args.method.is_empty() {
        added.push(Restriction::Methods(args.method.clone()));
    }
    added.extend(args.max_per_call.map(|amount| Restriction::PerCall(amount.0)));
    added.extend(args.budget.map(|amount| Restriction::Budget { msat: amount.0, nonce }));
    if !args.payee.is_empty() {
        let read = args.payee.iter().map(|id| NodeKey::from_slice(&id.0));
        let payees: Result<Vec<_>, _> = read.collect();
        let payees = payees.map_err(|error| CliError::Usage(format!("--payee: {error}")))?;
        added.push(Restriction::Payees(payees));
    }
    let expires = args.expires_in.map(|seconds| now_seconds.saturating_add(seconds));
    added.extend(expires.map(Restriction::Expires));
    if !args.source.is_empty() {
        added.push(Restriction::Sources(args.source.clone()));
    }
    Ok(added)
}

fn inspect(out: Output, file: &Path) -> Result<(), CliError> {
    let read = read(file)?;
    match out.is_json() {
        true => {
            let restrictions: Vec<_> = read
                .restrictions()
                .iter()
                .map(|restriction| {
                    let (kind, value) = token::described(restriction);
                    json!({ "kind": kind, "value": value })
                })
                .collect();
            let document = json!({
                "token_id": read.id().to_string(),
                "link_id": read.last_link().to_string(),
                "restrictions": restrictions,
            });
            out.document(&document, true)
        }
        false => out.text(&token::inspected(&read)),
    }
}

/// Reads a token from a file, or from standard input.
fn read(file: &Path) -> Result<Token, CliError> {
    let text = match file.as_os_str() == "-" {
        true => {
            let mut text = Zeroizing::new(String::new());
            std::io::stdin().read_to_string(&mut text)?;
            text
        }
        false => Zeroizing::new(std::fs::read_to_string(file).map_err(|error| {
            CliError::Usage(format!("cannot read the token {}: {error}", file.display()))
        })?),
    };
    Token::parse(&text).map_err(|error| {
        CliError::Usage(format!(
            "{} holds no token that can be narrowed: {error}; `tributary token bake` makes one",
            file.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use node::tokens::TokenId;

    use super::*;
    use crate::args::{Cli, Verb};

    fn restrictions(words: &str) -> RestrictionArgs {
        let all = ["tributary", "token", "narrow", "file"].into_iter().chain(words.split(' '));
        match Cli::try_parse_from(all).unwrap().verb {
            Verb::Token(TokenVerb::Narrow(args)) => args.restrictions,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_words_become_restrictions() {
        let node = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        let words = format!(
            "--role payer --method Payments/Pay --max-per-call 1sat --budget 5sat --payee {node} \
             --expires-in 1h --source 10.0.0.0/8"
        );
        let args = restrictions(&words);
        let made = added(&args, 1_000, [7; 8]).unwrap();
        assert_eq!(made.len(), 7);
        assert_eq!(made[0], Restriction::Role(Role::Payer));
        assert_eq!(made[2], Restriction::PerCall(1_000));
        assert_eq!(made[3], Restriction::Budget { msat: 5_000, nonce: [7; 8] });
        assert_eq!(made[5], Restriction::Expires(4_600));
        let asked = asked(&args, 1_000);
        assert_eq!(asked.role(), TokenRole::Payer);
        assert_eq!(asked.methods, ["tributary.v1.Payments/Pay"]);
        assert_eq!((asked.per_call_max_msat, asked.budget_msat), (Some(1_000), Some(5_000)));
        assert_eq!(asked.expires_unix_seconds, Some(4_600));
        assert_eq!((asked.payee_node_ids.len(), asked.sources.len()), (1, 1));
        // Any 33 bytes look like a node on the command line.
        let odd = restrictions(&format!("--payee {}", "09".repeat(33)));
        assert!(matches!(added(&odd, 0, [0; 8]), Err(CliError::Usage(_))));
    }

    #[test]
    fn a_file_without_a_token_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let problem = |file: &Path| format!("{:?}", read(file).unwrap_err());
        assert!(problem(&file).contains("cannot read"), "{}", problem(&file));
        std::fs::write(&file, "00".repeat(32)).unwrap();
        assert!(problem(&file).contains("token bake"), "{}", problem(&file));
        let token = Token::bake(&[1; 32], TokenId([2; 16]), Vec::new()).unwrap();
        std::fs::write(&file, format!("{}\n", *token.reveal())).unwrap();
        assert_eq!(read(&file).unwrap().id(), TokenId([2; 16]));
        assert!(token::inspected(&read(&file).unwrap()).contains("everything"));
    }
}
