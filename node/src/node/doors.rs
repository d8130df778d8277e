//! The doors by which callers come in: gRPC, and REST beside it.

use std::sync::Arc;

use tokio::net::TcpListener;

use super::StartError;
use crate::config::Config;
use crate::environment::Environment;
use crate::rpc::auth::{AdminToken, Authenticator};
use crate::rpc::connection::{CONNECTION_FILE, Connection};
use crate::rpc::tls::{TlsFiles, TlsIdentity};
use crate::rpc::{self, CallLimits, Door, Gate};
use crate::runtime::Tasks;
use crate::tokens::Tokens;

/// Listens for callers, who hear `STARTING` until the door opens. Returns the addresses of gRPC and
/// REST.
pub(super) async fn serve_rpc(
    config: &Config,
    environment: &Environment,
    door: &Door,
    tokens: &Arc<Tokens>,
    tasks: &Tasks,
) -> Result<(String, String), StartError> {
    if config.rpc.listen.is_empty() {
        return Ok((String::new(), String::new()));
    }
    let (listener, address) = listen("rpc.listen", &config.rpc.listen).await?;
    let files = TlsFiles { cert: config.tls_cert_file(), key: config.tls_key_file() };
    let tls =
        TlsIdentity::load_or_create(&files, &config.rpc.tls_extra_names, &*environment.clock)?
            .asking_for(config.client_ca_file().as_deref())?;
    let token = AdminToken::load_or_create(&config.token_file(), &*environment.entropy)?;
    let authenticator = Authenticator::new(token, Arc::clone(tokens));
    let gate = Gate::new(authenticator, CallLimits::new(&config.rpc));
    let routes =
        rpc::serve(door.clone(), listener, &tls, &gate, config.rpc.connections_max, tasks).await?;
    let mut rest_address = String::new();
    if !config.rest.listen.is_empty() {
        let (listener, address) = listen("rest.listen", &config.rest.listen).await?;
        rpc::rest::serve(routes, listener, &tls, &config.rest, tasks).await?;
        rest_address = address;
    }
    let connection = Connection {
        rpc: address.clone(),
        rest: Some(rest_address.clone()).filter(|address| !address.is_empty()),
        tls_cert: files.cert,
        token_file: config.token_file(),
    };
    connection.write(&config.data_dir().join(CONNECTION_FILE))?;
    Ok((address, rest_address))
}

/// Listens for callers; returns the real address too.
async fn listen(key: &'static str, address: &str) -> Result<(TcpListener, String), StartError> {
    let cannot_listen =
        |source| StartError::CannotListen { address: address.to_owned(), source, key };
    let listener = TcpListener::bind(address).await.map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?.to_string();
    Ok((listener, address))
}
