//! Trace context across Kafka, as the text of a W3C `traceparent` header, so that no crate below has to know OpenTelemetry.
//!
//! `tracestate` is neither written nor read: nothing here uses it, the specification allows to drop it, and the
//! propagator would write an empty one, which some readers refuse.

use std::collections::HashMap;

use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::semconv::TRACEPARENT;

/// The `traceparent` of the current span, to be written into the headers of a record or request. `None` when traces are off.
pub fn current_traceparent() -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
    carrier.remove(TRACEPARENT)
}

/// Makes `span` a part of the trace that `traceparent` names and gives it back. Nothing happens when there is none, when it
/// is not well formed (it comes from outside), or when traces are off. The span must not have been entered yet.
#[must_use]
pub fn span_from(traceparent: Option<&str>, span: Span) -> Span {
    if let Some(context) = traceparent.and_then(extract) {
        // Fails only without the OpenTelemetry layer, or for a span that was entered: then it keeps the parent it has.
        let _ = span.set_parent(context);
    }
    span
}

/// Links `span` (of a batch) to the traces of its records. A batch has many origins, so it joins none of them.
pub fn link_from<'a>(traceparents: impl IntoIterator<Item = &'a str>, span: &Span) {
    for context in traceparents.into_iter().filter_map(extract) {
        span.add_link(context.span().span_context().clone());
    }
}

fn extract(traceparent: &str) -> Option<Context> {
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    context.span().span_context().is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::layer::SubscriberExt;

    const UPSTREAM: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[derive(Debug, Clone, Default)]
    struct Kept(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().unwrap().extend(batch);
            Ok(())
        }
    }

    fn traced(test: impl FnOnce()) -> Vec<SpanData> {
        let kept = Kept::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(kept.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), test);
        kept.0.lock().unwrap().clone()
    }

    #[test]
    fn a_span_joins_the_trace_of_the_record_and_passes_it_on() {
        let spans = traced(|| {
            span_from(Some(UPSTREAM), tracing::info_span!("process")).in_scope(|| {
                let next = current_traceparent().unwrap();
                assert!(next.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{next}");
                assert_ne!(next, UPSTREAM);
            });
        });
        assert_eq!(spans[0].parent_span_id.to_string(), "b7ad6b7169203331");
    }

    #[test]
    fn a_malformed_or_absent_traceparent_begins_a_trace_of_its_own() {
        let spans = traced(|| {
            for wrong in
                [None, Some(""), Some("00-zz"), Some("00-00000000000000000000000000000000-0000000000000000-01")]
            {
                span_from(wrong, tracing::info_span!("process")).in_scope(|| assert!(current_traceparent().is_some()));
            }
        });
        assert_eq!(spans.len(), 4);
        assert!(spans.iter().all(|span| span.parent_span_id.to_string() == "0000000000000000"));
    }

    #[test]
    fn a_batch_links_to_the_traces_of_its_records() {
        let spans = traced(|| {
            let span = tracing::info_span!("process batch");
            link_from([UPSTREAM, "nonsense"], &span);
        });
        assert_eq!(spans[0].links.len(), 1);
        assert_eq!(spans[0].links[0].span_context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
    }

    #[test]
    fn without_traces_there_is_no_traceparent() {
        let subscriber = tracing_subscriber::registry();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info_span!("process").in_scope(|| assert_eq!(current_traceparent(), None));
        });
    }
}
