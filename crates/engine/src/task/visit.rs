//! Web pages that the user of a client is sent to.

use std::sync::Arc;

use serde_json::json;
use stentor_wire::{Era, ErrorObject, code, notification};

use super::ask::lacking;
use super::{AskError, Context, Elicit, InputRequired};
use crate::core::Core;
use crate::embed::Audience;
use crate::engine::Stopped;
use crate::handler::CallError;
use crate::ids::SessionId;

/// The visit of a web page that a client was asked to send its user to: who made it can tell that
/// client when all is done there, also long after the call has been answered.
#[derive(Clone, Debug)]
pub struct UrlElicitation {
    core: Arc<Core>,
    /// Of a legacy client: no other is told.
    session: Option<SessionId>,
    id: String,
}

impl UrlElicitation {
    /// Its name, `elicitationId` to clients up to 2025-11-25.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Tells the client that the visit is over, with `notifications/elicitation/complete`, wherever its
    /// session is. A modern client is told nothing: it knows no such notice, and asks again when its
    /// user says so.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub async fn complete(&self) -> Result<(), Stopped> {
        let Some(session) = &self.session else { return Ok(()) };
        let params = json!({"elicitationId": self.id});
        let audience = Audience::session(session.clone());
        self.core.notify(&audience, notification::ELICITATION_COMPLETE, Some(params)).await
    }
}

impl Context {
    /// Sends the user to a web page ([`Elicit::url`]), and returns when the user has agreed to go there.
    ///
    /// What happens there is between the page and the author: its end is told with
    /// [`UrlElicitation::complete`].
    ///
    /// # Errors
    ///
    /// As [`elicit`](Self::elicit).
    pub async fn elicit_url(&self, elicit: Elicit) -> Result<UrlElicitation, AskError> {
        let visit = self.url_elicitation(&elicit);
        self.elicit_with(elicit).await?;
        Ok(visit)
    }

    /// The visit that a question of this call is about, to be told of later.
    #[must_use]
    pub fn url_elicitation(&self, elicit: &Elicit) -> UrlElicitation {
        let call = self.call();
        let session = call.caller.session.clone().filter(|_| self.era() == Era::Legacy);
        let id = elicit.elicitation_id().unwrap_or_default().to_owned();
        UrlElicitation { core: call.core.clone(), session, id }
    }

    /// The error that ends the call until the user has been to these pages ([`Elicit::url`]); then the
    /// client sends its request once more.
    ///
    /// Up to 2025-11-25 it is -32042 (client/elicitation, "URL Elicitation Required Error"); a modern
    /// client is asked with `input_required`. One that cannot send its user anywhere is told so.
    ///
    /// ```
    /// # use stentor_engine::{Context, Elicit, ToolError};
    /// async fn files(ctx: Context) -> Result<String, ToolError> {
    ///     let visit = Elicit::url("May this server see your files?", "https://example.com/connect");
    ///     let done = ctx.url_elicitation(&visit);
    ///     // To whoever serves the page, who calls `done.complete()`.
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
