//! The one way in: who calls, whether they may, whether there is room, and until when.
//!
//! Every service but health stands behind a [`Guarded`]. It asks, in this order: the token
//! (`auth`), the method (`methods` and the token's rights), how often (`rates`), a place
//! (`places`), and gives the call the time that its `grpc-timeout` names. Handlers find the
//! [`Caller`](super::auth::Caller) among the request's extensions, with the purse that pays.
//! Streams end when their token does (`ending`).

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};

use super::auth::{Authenticator, Caller};
use super::ending::Ending;
use super::methods::{Method, Spending, method};
use super::places::{Overloaded, PlaceLimits, Places};
use super::rates::{Buckets, Rates};
use super::status::{Reason, Refusal};

/// When a call that found no place may be repeated.
const AFTER_OVERLOAD: Duration = Duration::from_millis(500);
/// How long a call waits for a place at most.
const IN_LINE_MAX: Duration = Duration::from_secs(10);
/// tonic's own timer for `grpc-timeout` gives no reason; ours goes off this much earlier.
const BEFORE_TIMEOUT: Duration = Duration::from_millis(3);

/// What bounds the calls of a server.
#[derive(Debug, Clone, Copy)]
pub struct CallLimits {
    pub(crate) rates: Rates,
    pub(crate) places: PlaceLimits,
}

impl CallLimits {
    /// As the configuration says.
    pub fn new(config: &crate::config::RpcConfig) -> Self {
        Self {
            rates: Rates {
                per_token: config.token_calls_per_second,
                per_method: config.method_calls_per_second,
            },
            places: PlaceLimits {
                at_work: config.calls_at_work_max,
                waiting: config.calls_waiting_max,
            },
        }
    }
}

/// What all services of a server share.
pub struct Gate {
    authenticator: Authenticator,
    buckets: Buckets,
    places: Arc<Places>,
}

impl Gate {
    /// Lets in whom `authenticator` knows, within `limits`.
    pub fn new(authenticator: Authenticator, limits: CallLimits) -> Arc<Self> {
        let buckets = Buckets::new(limits.rates);
        Arc::new(Self { authenticator, buckets, places: Places::new(limits.places) })
    }

    /// Says who calls, and refuses whom the method is not for.
    fn judge(&self, name: &str, method: Method, call: &Call) -> Result<Caller, Refusal> {
        let caller = self.authenticator.check(&call.metadata, call.source_ip)?;
        let Caller::Token(holder) = &caller else {
            return Ok(caller);
        };
        if !holder.may_call(name) {
            let message = format_args!("the token may not call {name}");
            return Err(Refusal::new(Reason::MethodDenied, message)
                .with("method", name)
                .with("token_id", holder.id())
                .money_may_have_moved(false));
        }
        if holder.purse().is_some() && method.spending == Spending::Unbounded {
            return Err(unbounded(name));
        }
        self.buckets.take(holder.id(), name, Instant::now()).map_err(|wait| {
            Refusal::new(Reason::RateLimited, "the token calls too often")
                .with("method", name)
                .retry_after(wait.max(Duration::from_millis(1)))
                .money_may_have_moved(false)
        })?;
        Ok(caller)
    }
}

/// Refuses a token with bounds what nobody can count.
pub(super) fn unbounded(method: &str) -> Refusal {
    let message =
        format_args!("what {method} costs cannot be told beforehand, and the token counts");
    Refusal::new(Reason::SpendingUnbounded, message)
        .with("method", method)
        .money_may_have_moved(false)
}

/// What a call says of itself.
struct Call {
    metadata: MetadataMap,
    source_ip: Option<IpAddr>,
    /// Until when the caller waits.
    deadline: Option<Deadline>,
}

#[derive(Clone, Copy)]
struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Call {
    fn read<B>(request: &http::Request<B>) -> Self {
        let extensions = request.extensions();
        let tls = extensions.get::<TlsConnectInfo<TcpConnectInfo>>();
        let tcp = tls.map(TlsConnectInfo::get_ref).or_else(|| extensions.get());
        let timeout = request.headers().get("grpc-timeout").and_then(|value| value.to_str().ok());
        let timeout = timeout.and_then(read_timeout);
        let deadline = timeout.map(|timeout| Deadline {
            at: Instant::now() + timeout.saturating_sub(BEFORE_TIMEOUT),
            timeout,
        });
        Self {
            metadata: MetadataMap::from_headers(request.headers().clone()),
            source_ip: tcp.and_then(TcpConnectInfo::remote_addr).map(|address| address.ip()),
            deadline,
        }
    }
}

/// Reads `grpc-timeout`: at most eight digits and a unit.
///
/// Source: gRPC over HTTP2, "Requests".
fn read_timeout(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.len() > 8 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Refuses because the caller waits no more.
fn too_late(deadline: Deadline, begun: bool) -> Refusal {
    let message = match begun {
        true => "the caller's deadline has passed; what the call began goes on",
        false => "the caller's deadline had passed before the call was begun",
    };
    Refusal::new(Reason::DeadlinePassed, message)
        .with("timeout_ms", deadline.timeout.as_millis())
        .money_may_have_moved(begun)
}

/// Resolves when the caller waits no more.
async fn passed(deadline: Option<Deadline>) -> Deadline {
    match deadline {
        Some(deadline) => {
            tokio::time::sleep_until(deadline.at).await;
            deadline
        }
        None => std::future::pending().await,
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub(super) struct Guarded<S> {
    inner: S,
    gate: Arc<Gate>,
}

impl<S> Guarded<S> {
    pub(super) fn new(inner: S, gate: &Arc<Gate>) -> Self {
        Self { inner, gate: Arc::clone(gate) }
    }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // The one that was found ready is the one to call.
        let fresh = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, fresh);
        let gate = Arc::clone(&self.gate);
        Box::pin(async move {
            let answer = pass(&gate, inner, request).await;
            Ok(answer.unwrap_or_else(|refusal| Status::from(refusal).into_http()))
        })
    }
}

/// Takes one call through the gate.
async fn pass<S>(
    gate: &Arc<Gate>,
    mut inner: S,
    mut request: http::Request<Body>,
) -> Result<http::Response<Body>, Refusal>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
{
    let name = request.uri().path().trim_start_matches('/').to_owned();
    let method = method(&name);
    let call = Call::read(&request);
    let deadline = call.deadline;
    let caller = gate.judge(&name, method, &call)?;
    let overloaded = |waiting: usize| {
        Refusal::new(Reason::Overloaded, format_args!("{waiting} calls wait already"))
            .with("waiting", waiting)
            .retry_after(AFTER_OVERLOAD)
            .money_may_have_moved(false)
    };
    let place = tokio::select! {
        biased;
        late = passed(deadline) => return Err(too_late(late, false)),
        place = gate.places.enter(method.mutates) => {
            place.map_err(|Overloaded { waiting }| overloaded(waiting))?
        }
        () = tokio::time::sleep(IN_LINE_MAX) => return Err(overloaded(0)),
    };
    if let Some(late) = deadline.filter(|deadline| deadline.at <= Instant::now()) {
        return Err(too_late(late, false));
    }
    request.extensions_mut().insert(caller.clone());
    let answer = tokio::select! {
        biased;
        answer = place.hold(inner.call(request)) => {
            let Ok(answer) = answer;
            answer
        }
        late = passed(deadline) => return Err(too_late(late, method.mutates)),
    };
    if !method.streams {
        return Ok(answer);
    }
    let gate = Arc::clone(gate);
    let end = async move {
        tokio::select! {
            biased;
            late = passed(deadline) => too_late(late, method.mutates),
            // What a call has begun goes on without its caller.
            over = gate.authenticator.over(&caller) => over.money_may_have_moved(method.mutates),
        }
    };
    Ok(answer.map(|body| Body::new(Ending::new(body, end))))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::poll;
    use tonic_types::StatusExt;

    use super::super::auth::AdminToken;
    use super::super::status::{Explanation, explain};
    use super::super::testing;
    use super::*;
    use crate::environment::OsEntropy;

    const TAKES: Duration = Duration::from_secs(1);

    /// A service that takes its time, and counts what it began.
    #[derive(Clone, Default)]
    struct Slow(Arc<AtomicU32>);

    impl Service<http::Request<Body>> for Slow {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<Self::Response, Infallible>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Body>) -> Self::Future {
            assert!(request.extensions().get::<Caller>().is_some(), "the gate says who calls");
            self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async {
                tokio::time::sleep(TAKES).await;
                Ok(http::Response::default())
            })
        }
    }

    /// A gate with places for `at_work` and `waiting`, and a way to call through it.
    struct World {
        guarded: Guarded<Slow>,
        begun: Arc<AtomicU32>,
        token: String,
    }

    impl World {
        fn new(at_work: usize, waiting: usize) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("token");
            let admin = AdminToken::load_or_create(&path, &OsEntropy).unwrap();
            let token = format!("Bearer {}", *admin.reveal());
            let authenticator = Authenticator::new(admin, testing::tokens());
            let places = PlaceLimits { at_work, waiting };
            let limits = CallLimits { rates: Rates::default(), places };
            let slow = Slow::default();
            let begun = Arc::clone(&slow.0);
            let guarded = Guarded::new(slow, &Gate::new(authenticator, limits));
            Self { guarded, begun, token }
        }

        fn call(
            &self,
            method: &str,
            timeout: Option<&str>,
        ) -> impl Future<Output = Option<Status>> + use<> {
            let mut request = http::Request::new(Body::empty());
            *request.uri_mut() = format!("/tributary.v1.{method}").parse().unwrap();
            request.headers_mut().insert("authorization", self.token.parse().unwrap());
            if let Some(timeout) = timeout {
                request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
            }
            let mut guarded = self.guarded.clone();
            async move {
                let Ok(answer) = guarded.call(request).await;
                Status::from_header_map(answer.headers())
            }
        }

        fn begun(&self) -> u32 {
            self.begun.load(Ordering::Relaxed)
        }
    }

    fn refused(answer: Option<Status>) -> Explanation {
        explain(&answer.expect("the call is refused"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_the_call_and_says_whether_money_may_have_moved() {
        let world = World::new(4, 4);
        assert!(world.call("Payments/Pay", Some("2S")).await.is_none(), "it had time enough");
        let late = refused(world.call("Payments/Pay", Some("100m")).await);
        assert_eq!(late.reason.as_deref(), Some("DEADLINE_PASSED"));
        assert_eq!(late.money_may_have_moved, Some(true));
        let late = refused(world.call("Payments/ListPayments", Some("100m")).await);
        assert_eq!(late.money_may_have_moved, Some(false), "it only looks");
        assert_eq!(late.metadata["timeout_ms"], "100");
        let begun = world.begun();
        let late = refused(world.call("Payments/Pay", Some("0m")).await);
        assert_eq!((late.money_may_have_moved, world.begun()), (Some(false), begun));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_in_line_past_the_deadline_has_begun_nothing() {
        let world = World::new(1, 4);
        let mut first = Box::pin(world.call("Payments/Pay", None));
        assert!(poll!(first.as_mut()).is_pending());
        let late = refused(world.call("Payments/Pay", Some("20m")).await);
        assert_eq!(late.reason.as_deref(), Some("DEADLINE_PASSED"));
        assert_eq!(late.money_may_have_moved, Some(false));
        assert_eq!(world.begun(), 1);
        assert!(first.await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn payments_go_before_queries_and_what_finds_no_place_may_come_again() {
        let world = World::new(1, 1);
        let mut first = Box::pin(world.call("Payments/ListPayments", None));
        assert!(poll!(first.as_mut()).is_pending());
        let mut query = Box::pin(world.call("Payments/ListPayments", None));
        assert!(poll!(query.as_mut()).is_pending());
        let status = world.call("Payments/ListPayments", None).await.unwrap();
        let retry = status.get_details_retry_info().unwrap();
        assert_eq!(retry.retry_delay, Some(AFTER_OVERLOAD));
        assert_eq!(explain(&status).reason.as_deref(), Some("OVERLOADED"));
        let mut pay = Box::pin(world.call("Payments/Pay", None));
        assert!(poll!(pay.as_mut()).is_pending());
        let overtaken = refused(query.await);
        assert_eq!(overtaken.reason.as_deref(), Some("OVERLOADED"));
        assert_eq!(overtaken.money_may_have_moved, Some(false));
        let (pay, first) = futures::join!(pay, first);
        assert!(pay.is_none() && first.is_none());
        assert_eq!(world.begun(), 2);
    }

    #[test]
    fn a_timeout_is_eight_digits_and_a_unit() {
        assert_eq!(read_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        assert_eq!(read_timeout("7S"), Some(Duration::from_secs(7)));
        assert_eq!(read_timeout("7u"), Some(Duration::from_micros(7)));
        for bad in ["", "m", "1", "1x", "-1S", "+1S", "123456789S", "1é", "é"] {
            assert_eq!(read_timeout(bad), None, "{bad}");
        }
    }
}
