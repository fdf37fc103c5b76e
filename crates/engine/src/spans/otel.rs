//! Spans as parts of traces: W3C Trace Context, read into OpenTelemetry's types and written again.

use std::str::FromStr as _;

use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use stentor_wire::TraceContext;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Makes a new span the child of the span that a request names, and links it to the one around it.
/// If the request names none, the span stays the child of the one around it.
pub(super) fn set_parent(span: &Span, trace: &TraceContext, surrounding: &Span) {
    let Some(parent) = read(trace) else { return };
    span.add_link(surrounding.context().span().span_context().clone());
    // It fails if no subscriber here knows of traces.
    let _ = span.set_parent(Context::new().with_remote_span_context(parent));
}

/// What another node needs to make a child of this span.
pub(super) fn context_of(span: &Span) -> Option<TraceContext> {
    let context = span.context();
    let span = context.span();
    let own = span.span_context();
    own.is_valid().then(|| {
        let (trace, id, sampled) = (own.trace_id(), own.span_id(), u8::from(own.is_sampled()));
        let state = own.trace_state().header();
        TraceContext {
            traceparent: Some(format!("00-{trace}-{id}-{sampled:02x}")),
            tracestate: Some(state).filter(|state| !state.is_empty()),
            baggage: None,
        }
    })
}

/// Reads a trace context (W3C Trace Context, 3.2 and 3.3). An invalid `traceparent` is none, and an
/// invalid `tracestate` is empty.
fn read(trace: &TraceContext) -> Option<SpanContext> {
    let mut parts = trace.traceparent.as_deref()?.split('-');
    let mut hex = |len: usize| {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        parts.next().filter(|part| part.len() == len && part.bytes().all(digit))
    };
    let (version, trace_id, id, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    // A later version may have more parts; 255 is no version.
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    // It goes into headers again, and JSON may contain what no header can.
    let state = trace.tracestate.as_deref();
    let state = state.filter(|state| state.bytes().all(|byte| matches!(byte, b' '..=b'~')));
    let state = state.and_then(|state| TraceState::from_str(state).ok());
    let (trace_id, id) = (TraceId::from_hex(trace_id).ok()?, SpanId::from_hex(id).ok()?);
    let context = SpanContext::new(trace_id, id, flags, true, state.unwrap_or_default());
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn of(traceparent: &str, tracestate: Option<&str>) -> Option<SpanContext> {
        let (traceparent, tracestate) = (Some(traceparent.into()), tracestate.map(Into::into));
        read(&TraceContext { traceparent, tracestate, baggage: None })
    }

    #[test]
    fn a_trace_context_is_read_as_w3c_says() {
        let read = of(&format!("00-{TRACE}-00f067aa0ba902b7-01"), Some("a=1,b=2")).unwrap();
        assert_eq!(read.trace_id().to_string(), TRACE);
        assert_eq!(read.span_id().to_string(), "00f067aa0ba902b7");
        assert!(read.is_sampled() && read.is_remote());
        assert_eq!(read.trace_state().header(), "a=1,b=2");
        // What is wrong with the state is wrong with the state only.
        for state in ["no pair", "A=1", "a=1\nb=2", "a=ä"] {
            let read = of(&format!("00-{TRACE}-00f067aa0ba902b7-00"), Some(state)).unwrap();
            assert!(!read.is_sampled() && read.trace_state().header().is_empty(), "{state}");
        }
        // A later version.
        assert!(of(&format!("cc-{TRACE}-00f067aa0ba902b7-01-more"), None).is_some());
    }

    #[test]
    fn an_invalid_traceparent_is_none() {
        let none = "0".repeat(32);
        for traceparent in [
            "",
            "00",
            "nonsense",
            &format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            &format!("00-{none}-00f067aa0ba902b7-01"),
            &format!("00-{TRACE}-0000000000000000-01"),
            &format!("00-{TRACE}-00f067aa0ba902b7"),
            &format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            &format!("00-{TRACE}-00F067AA0BA902B7-01"),
            &format!("00-{TRACE}-+0f067aa0ba902b7-01"),
        ] {
            assert!(of(traceparent, None).is_none(), "{traceparent}");
        }
    }
}
