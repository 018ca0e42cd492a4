//! Requests to the JetStream API as the session runs them: which stream each is about, and what its outcome reports.

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use super::api::Api;
use super::{connect, consumers, lease, streams, tail};
use sea_mq_model::broker::{BrokerConfig, Report, Request};
use sea_mq_model::consume::missed::Gap;

/// An API request under way.
pub(super) type Call = LocalBoxFuture<'static, Answer>;

/// The outcome of an API request.
pub(super) struct Answer {
    /// The stream that the request was about.
    pub(super) stream: String,
    pub(super) report: Option<Report>,
    /// Whether the stream is on a server without a cluster, if the request told.
    pub(super) standalone: Option<bool>,
    /// It was asked whether JetStream lives, and it does.
    pub(super) alive: bool,
}

/// The lane of what holds up no stream. No stream has this name.
const ASIDE: &str = "/";

/// The stream whose lane a request takes; `None` for those that take none.
pub(super) fn stream_of(request: &Request) -> Option<&str> {
    match request {
        Request::Connect(_)
        | Request::Shutdown
        | Request::ReadLimit
        | Request::Ack { .. }
        | Request::SetLine { .. }
        | Request::StopConsuming { .. } => None,
        Request::ReadPage { .. }
        | Request::ReadMaxAge { .. }
        | Request::ReadStream { .. }
        | Request::CountRemoved { .. }
        | Request::ReadConsumer { .. } => Some(ASIDE),
        Request::Lease { .. } => Some(lease::STREAM),
        Request::EnsureStream { spec, .. } => Some(&spec.name),
        Request::EnsureConsumer { spec } => Some(&spec.stream),
        Request::DeleteStream { name, .. } => Some(name),
        Request::DeleteConsumer { stream, .. }
        | Request::ReadTail { stream, .. }
        | Request::Publish { stream, .. }
        | Request::Consume { stream, .. }
        | Request::DeleteMessage { stream, .. } => Some(stream),
    }
}

/// Begins a request.
pub(super) fn call(api: Api, stream: String, request: Request) -> Call {
    async move {
        let mut standalone = None;
        let report = answer(&api, &stream, request, &mut standalone).await;
        Answer { stream, report, standalone, alive: false }
    }
    .boxed_local()
}

/// Asks whether JetStream lives.
pub(super) fn ask(api: Api) -> Call {
    async move {
        let alive = api.prove().await.is_ok();
        Answer { stream: String::new(), report: None, standalone: None, alive }
    }
    .boxed_local()
}

/// Asks for the largest message on a connection of its own.
pub(super) fn limit(config: BrokerConfig) -> Call {
    async move {
        let link = connect::connect(&BrokerConfig { relay: None, ..config }).await.ok();
        let report = link.map(|link| Report::Limit { max_payload: link.server.max_payload });
        Answer { stream: String::new(), report, standalone: None, alive: false }
    }
    .boxed_local()
}

async fn answer(api: &Api, stream: &str, request: Request, standalone: &mut Option<bool>) -> Option<Report> {
    match request {
        // Not the API's.
        Request::Connect(_)
        | Request::Shutdown
        | Request::ReadLimit
        | Request::Publish { .. }
        | Request::Consume { .. }
        | Request::Ack { .. }
        | Request::SetLine { .. }
        | Request::StopConsuming { .. } => None,
        Request::EnsureStream { sink, spec } => Some(match api.permitted(stream, streams::ensure(api, &spec)).await {
            Ok(ensured) => {
                *standalone = Some(ensured.standalone);
                Report::StreamReady { sink, info: ensured.info }
            }
            Err(fault) => Report::StreamRefused { sink, fault },
        }),
        Request::Lease { claimant, claim } => {
            Some(Report::Lease { standing: lease::stand(api, &claimant, claim).await, claim })
        }
        Request::ReadTail { sink, after, .. } => {
            Some(match api.permitted(stream, tail::read(api, stream, after)).await {
                Ok((messages, last_sequence)) => Report::Tail { sink, messages, last_sequence },
                Err(fault) => Report::StreamRefused { sink, fault },
            })
        }
        Request::ReadPage { comparison, stream, after, upto } => {
            let result = api.permitted(&stream, tail::read_page(api, &stream, after, upto)).await;
            Some(Report::Page { comparison, result })
        }
        Request::EnsureConsumer { spec } => {
            let result = api.permitted(stream, consumers::ensure(api, &spec)).await;
            let (stream, name) = (spec.stream, spec.name);
            Some(match result {
                Ok(info) => Report::ConsumerReady { stream, name, info },
                Err(fault) => Report::ConsumerRefused { stream, name, fault },
            })
        }
        Request::ReadStream { sink, spec } => streams::look(api, sink, &spec).await,
        Request::ReadMaxAge { stream } => consumers::max_age(api, stream).await,
        Request::ReadConsumer { spec } => consumers::seen(api, &spec).await,
        Request::CountRemoved { subscription, stream, created_us, gaps } => {
            let gap = Gap::spanning(&gaps)?;
            let removed = consumers::count_removed(api, &stream, created_us, &gaps).await?;
            Some(Report::Counted { subscription, gap, removed })
        }
        Request::DeleteStream { name, owner, created_us } => {
            let result = api.permitted(stream, streams::delete(api, &name, owner, created_us)).await;
            Some(Report::StreamDeleted { name, result })
        }
        Request::DeleteMessage { stream, sequence } => {
            let result = api.permitted(&stream, streams::delete_message(api, &stream, sequence)).await;
            Some(Report::MessageDeleted { stream, sequence, result })
        }
        Request::DeleteConsumer { stream, name, owner } => {
            let result = api.permitted(&stream, consumers::delete(api, &stream, &name, owner)).await;
            Some(Report::ConsumerDeleted { stream, name, result })
        }
    }
}
