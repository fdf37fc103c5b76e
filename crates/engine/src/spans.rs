//! The spans of calls and the events in them, by OpenTelemetry's conventions for MCP.
//!
//! With the feature `otel` a span is a part of its client's trace. Without it, and for subscribers
//! that know nothing of traces, the fields `traceparent` and `tracestate` say to which trace it
//! belongs.
//!
//! The fields of a span that nobody wants are not even computed: the macros of `tracing` evaluate
//! them once they know that somebody does.

use std::fmt;

use stentor_delivery::loggable;
use stentor_wire::{LogLevel, Method, RequestMeta, Topic, TraceContext};
use tracing::Span;
use tracing::field::{Empty, display};

use crate::caller::Caller;
use crate::log::quietly;
use crate::reasons::{CallOutcome, CallRef, CancelReason};

#[cfg(feature = "otel")]
mod otel;

/// The target of all that this module emits, for filters.
const TARGET: &str = "stentor::call";

/// The name of a span: the method, and the item if there are few of its kind. There may be any
/// number of URIs.
struct Name<'a>(&'a Method, &'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(method, subject) = self;
        match method {
            Method::ToolsCall | Method::PromptsGet => write!(f, "{method} {subject}"),
            _ => write!(f, "{method}"),
        }
    }
}

/// The span of a call. `meta` is that of its request; a task that runs again has no request.
pub(crate) fn of_call(
    call: &CallRef,
    method: &Method,
    caller: &Caller,
    meta: Option<&RequestMeta>,
) -> Span {
    let parent = caller.forwarding_span.as_deref().or_else(|| Some(&meta?.trace));
    let subject_of = |of: &Method| (method == of).then_some(&*call.subject);
    let is_item =
        || matches!(method, Method::ToolsCall | Method::PromptsGet | Method::ResourcesRead);
    let span = quietly(|| {
        let span = tracing::debug_span!(
            target: TARGET,
            parent: surrounding(caller).id(),
            "mcp.call",
            otel.name = %Name(method, &call.subject),
            otel.kind = "server",
            otel.status_code = Empty,
            otel.status_description = Empty,
            call = %call.id,
            mcp.method.name = method.as_str(),
            mcp.session.id = caller.session.as_ref().map(|session| loggable(session.as_str())),
            mcp.protocol.version = caller.version.as_str(),
            // The id of a task is no id of a request, and a secret.
            jsonrpc.request.id = meta.map(|_| display(&call.request)),
            gen_ai.operation.name = subject_of(&Method::ToolsCall).map(|_| "execute_tool"),
            gen_ai.tool.name = subject_of(&Method::ToolsCall),
            gen_ai.prompt.name = subject_of(&Method::PromptsGet),
            mcp.resource.uri = subject_of(&Method::ResourcesRead),
            subject = (!is_item()).then_some(&*call.subject),
            enduser.id = call.principal.as_deref(),
            error.type = Empty,
            rpc.response.status_code = Empty,
            cancelled = Empty,
            resumed = meta.is_none().then_some(true),
            traceparent = parent.and_then(|trace| trace.traceparent.as_deref()),
            tracestate = parent.and_then(|trace| trace.tracestate.as_deref()),
        );
        #[cfg(feature = "otel")]
        if let Some(parent) = parent.filter(|_| !span.is_disabled()) {
            otel::set_parent(&span, parent, &surrounding(caller));
        }
        span
    });
    span.unwrap_or_else(Span::none)
}

/// The span in which a call is made, if it can contain the call: the host's own, of an HTTP request.
/// Calls of a session are made in its actor, whose span may last for days.
fn surrounding(caller: &Caller) -> Span {
    match caller.session {
        None => Span::current(),
        Some(_) => Span::none(),
    }
}

/// The span of the call that runs here, for the node to which the call is forwarded. `None` where
/// it is not a part of a trace: then the call there belongs to its client's trace directly.
pub(crate) fn of_this_call() -> Option<TraceContext> {
    #[cfg(feature = "otel")]
    {
        let context = quietly(|| {
            let span = Span::current();
            // If nobody wants the spans of calls, the current one is that of an actor.
            let is_of_call = span.metadata().is_some_and(|it| it.target() == TARGET);
            is_of_call.then(|| otel::context_of(&span)).flatten()
        });
        context.flatten()
    }
    #[cfg(not(feature = "otel"))]
    {
        None
    }
}

/// Says in the span of a call that the call is answered with this message of an error.
pub(crate) fn failed(span: &Span, message: &str) {
    quietly(|| span.record("otel.status_description", message));
}

/// Says in the span of a call how the call was answered.
pub(crate) fn answered(span: &Span, outcome: CallOutcome) {
    if span.is_disabled() {
        return;
    }
    let Some(error) = outcome.error_type() else { return };
    quietly(|| {
        span.record("error.type", &*error);
        span.record("otel.status_code", "ERROR");
        if let CallOutcome::Error(_) = outcome {
            span.record("rpc.response.status_code", &*error);
        }
    });
}

/// Says in the span of a call why the call was cancelled.
pub(crate) fn cancelled(span: &Span, reason: &CancelReason) {
    quietly(|| span.record("cancelled", display(reason)));
}

// The events are named as the notifications. They belong to the span of the thread that runs, as
// all events do, since a call's own span must not stay open for as long as the author keeps a
// `Context`.

/// The call reports progress.
pub(crate) fn progressed(progress: f64, total: Option<f64>) {
    crate::log!(trace, target: TARGET, progress, total, "notifications/progress");
}

/// The call sends a log message.
pub(crate) fn logged(level: LogLevel, logger: Option<&str>) {
    let level = level.as_str();
    crate::log!(trace, target: TARGET, severity = level, logger, "notifications/message");
}

/// The call announces that something changed.
pub(crate) fn announced(topic: &Topic) {
    let uri = topic.keyed().map(|(_, uri)| &**uri);
    crate::log!(debug, target: TARGET, { mcp.resource.uri = uri }, "{}", topic.method());
}

/// The call sends a notification of the application's own.
pub(crate) fn notified(method: &str) {
    crate::log!(debug, target: TARGET, "{method}");
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use stentor_wire::Id;
    use tracing_subscriber::fmt::format::FmtSpan;

    use super::*;
    use crate::identity::Who;
    use crate::ids::CallId;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The span of a task that runs again.
    fn resumed() -> Span {
        let (request, subject) = (Id::Text("node.the-secret-of-a-task".into()), "report".into());
        let call = CallRef { id: CallId(7), principal: None, session: None, request, subject };
        of_call(&call, &Method::ToolsCall, &Caller::of_task(Default::default(), Who::Nobody), None)
    }

    #[test]
    fn the_span_of_a_task_that_runs_again_does_not_tell_the_id_of_the_task() {
        let lines = Lines::default();
        let (out, level) = (lines.clone(), tracing::Level::DEBUG);
        let subscriber = tracing_subscriber::fmt().with_max_level(level).with_ansi(false);
        let subscriber = subscriber.with_span_events(FmtSpan::CLOSE);
        let subscriber = subscriber.with_writer(move || out.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            answered(&resumed(), CallOutcome::Failed);
        });
        let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        for told in ["tools/call report", "resumed=true", "call=7", "tool_error"] {
            assert!(lines.contains(told), "{lines}");
        }
        assert!(!lines.contains("secret") && !lines.contains("jsonrpc"), "{lines}");
    }

    #[test]
    fn a_span_that_nobody_wants_is_disabled() {
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).finish();
        tracing::subscriber::with_default(subscriber, || {
            assert!(resumed().is_disabled());
            assert_eq!(resumed().in_scope(of_this_call), None);
        });
    }
}
