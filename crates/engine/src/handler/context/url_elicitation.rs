//! URL elicitation: questions that send the user of a client to a web page.

use std::sync::Arc;

use serde_json::json;
use stentor_wire::{Era, ErrorObject, code, notification};

use super::ask::lacking;
use super::{AskError, CallHost, Context, Elicit, InputRequired};
use crate::audience::Audience;
use crate::handler::CallError;
use crate::ids::SessionId;
use crate::reasons::Stopped;

/// One visit to a web page that a client was asked to send its user to. The author's code can
/// notify the client when the visit is complete, also long after the call has been answered.
#[derive(Clone, Debug)]
pub struct UrlElicitation {
    host: Arc<dyn CallHost>,
    /// `Some` for a legacy client only: no other client is notified.
    session: Option<SessionId>,
    id: String,
}

impl UrlElicitation {
    /// The id of the visit. Clients up to 2025-11-25 see it as `elicitationId`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Notifies the client that the visit is complete, with `notifications/elicitation/complete`,
    /// on whichever node its session is. A modern client is not notified: it does not know this
    /// notification, and sends its request again when its user says so.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn complete(&self) -> Result<(), Stopped> {
        let Some(session) = &self.session else { return Ok(()) };
        let params = json!({"elicitationId": self.id});
        let audience = Audience::session(session.clone());
        self.host.notify(&audience, notification::ELICITATION_COMPLETE, Some(params)).await
    }
}

impl Context {
    /// Sends the user to a web page ([`Elicit::url`]). Returns when the user has agreed to go
    /// there.
    ///
    /// The client does not see what happens on the page. When the visit is complete, notify the
    /// client with [`UrlElicitation::complete`].
    ///
    /// # Errors
    ///
    /// As [`elicit`](Self::elicit).
    pub async fn elicit_url(&self, elicit: Elicit) -> Result<UrlElicitation, AskError> {
        let visit = self.url_elicitation(&elicit);
        self.elicit_with(elicit).await?;
        Ok(visit)
    }

    /// The visit that a question of this call asks for, to notify the client of its end later.
    #[must_use]
    pub fn url_elicitation(&self, elicit: &Elicit) -> UrlElicitation {
        let call = self.call();
        let session = call.caller.session.clone().filter(|_| self.era() == Era::Legacy);
        let id = elicit.elicitation_id().unwrap_or_default().to_owned();
        UrlElicitation { host: call.host.clone(), session, id }
    }

    /// The error that ends the call until the user has visited these pages ([`Elicit::url`]). The
    /// client then sends its request again.
    ///
    /// Up to 2025-11-25 the error is -32042 (client/elicitation, "URL Elicitation Required Error").
    /// A modern client is asked with `input_required`. A client that cannot send its user to a page
    /// gets an error that says so.
    ///
    /// ```
    /// # use stentor::{Context, ToolError, ask::Elicit};
    /// async fn files(ctx: Context) -> Result<String, ToolError> {
    ///     let visit = Elicit::url("May this server see your files?", "https://example.com/connect");
    ///     let done = ctx.url_elicitation(&visit);
    ///     // Give `done` to the code that serves the page; that code calls `done.complete()`.
    /// #   drop(done);
    ///     Err(ctx.url_elicitation_required("Connect your account first.", [visit]))
    /// }
    /// ```
    #[must_use]
    pub fn url_elicitation_required(
        &self,
        message: impl Into<String>,
        visits: impl IntoIterator<Item = Elicit>,
    ) -> CallError {
        let visits = visits.into_iter().filter_map(|visit| {
            let id = visit.elicitation_id()?.to_owned();
            Some((id, visit))
        });
        let can = self.client_capabilities();
        let mut asked = InputRequired::new();
        let mut elicitations = Vec::new();
        for (id, visit) in visits {
            let question = visit.question(self.era());
            if let Some(missing) = lacking(&can, &question) {
                return AskError::Unsupported(missing).into();
            }
            match self.era() {
                Era::Legacy => elicitations.push(question.params),
                Era::Modern => asked = asked.elicit(visit.key_or(&id), &visit),
            }
        }
        match self.era() {
            Era::Legacy => CallError::protocol(
                ErrorObject::new(code::URL_ELICITATION_REQUIRED, message)
                    .with_data(json!({ "elicitations": elicitations })),
            ),
            Era::Modern => CallError::input_required(asked),
        }
    }
}
