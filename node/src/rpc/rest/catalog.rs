//! Which methods there are, by the descriptors: the paths of this door.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message;
use prost_types::FileDescriptorSet;

use super::super::json;
use super::super::methods::method;

/// What every path begins with.
pub(super) const ROOT: &str = "/v1/";

/// Services that this server does not have: a tower's own door.
const ELSEWHERE: [&str; 1] = ["Watchtower"];

/// One method as this door offers it.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Its path in gRPC, such as `/tributary.v1.Payments/Pay`.
    pub grpc_path: String,
    /// Full name of its request, with the leading dot.
    pub request: String,
    /// Full name of its answer, with the leading dot.
    pub answer: String,
    /// Whether it changes something.
    pub mutates: bool,
    /// Whether its answer is a stream.
    pub streams: bool,
}

impl Endpoint {
    /// Whether its stream can be taken up again after a sequence.
    pub(super) fn resumes(&self) -> bool {
        self.streams && self.asks("after_sequence")
    }

    /// Whether its request has this field.
    pub(super) fn asks(&self, name: &str) -> bool {
        json::fields(&self.request).iter().any(|field| field.name() == name)
    }

    /// The HTTP methods it takes.
    pub(super) fn allowed(&self) -> &'static str {
        if self.mutates { "POST" } else { "GET, POST" }
    }
}

/// Endpoints by what follows [`ROOT`], such as `Payments/Pay`.
static ENDPOINTS: LazyLock<HashMap<String, Endpoint>> = LazyLock::new(|| {
    let set = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET)
        .expect("the build script wrote the descriptors");
    let mut endpoints = HashMap::new();
    for file in &set.file {
        let services = file.service.iter();
        for service in services.filter(|service| !ELSEWHERE.contains(&service.name())) {
            for entry in &service.method {
                let name = format!("{}/{}", service.name(), entry.name());
                let full_name = format!("{}.{name}", file.package());
                let known = method(&full_name);
                let endpoint = Endpoint {
                    grpc_path: format!("/{full_name}"),
                    request: entry.input_type().to_owned(),
                    answer: entry.output_type().to_owned(),
                    mutates: known.mutates,
                    streams: known.streams,
                };
                endpoints.insert(name, endpoint);
            }
        }
    }
    endpoints
});

/// The endpoint at a path.
pub(super) fn endpoint(path: &str) -> Option<&'static Endpoint> {
    ENDPOINTS.get(path.strip_prefix(ROOT)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_interface() {
        let pay = endpoint("/v1/Payments/Pay").unwrap();
        assert_eq!(pay.grpc_path, "/tributary.v1.Payments/Pay");
        assert_eq!((pay.mutates, pay.streams, pay.allowed()), (true, false, "POST"));
        let subscribe = endpoint("/v1/Events/Subscribe").unwrap();
        assert!(subscribe.streams && subscribe.resumes() && !subscribe.mutates);
        assert!(!endpoint("/v1/Payments/WatchPayment").unwrap().resumes());
        assert!(!endpoint("/v1/Events/List").unwrap().resumes(), "it is no stream");
        for path in ["/v1/Payments/pay", "/v1/Payments", "/Payments/Pay", "/v1/Watchtower/GetTerms"]
        {
            assert!(endpoint(path).is_none(), "{path}");
        }
    }

    /// A line of NDJSON is a message or an error; no message may look like the latter.
    #[test]
    fn no_stream_has_messages_with_a_field_called_error() {
        for (name, endpoint) in ENDPOINTS.iter().filter(|(_, endpoint)| endpoint.streams) {
            let fields = json::fields(&endpoint.answer);
            assert!(fields.iter().all(|field| field.name() != "error"), "{name}");
        }
    }
}
