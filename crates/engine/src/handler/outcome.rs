//! How the author's code fails.

use std::any::Any;
use std::error::Error;
use std::fmt;

use stentor_wire::{Era, ErrorObject, code};

use super::{AskError, InputRequired};
use crate::reasons::Stopped;

/// Why a call failed, and what its client reads of that.
///
/// | made from | the client reads |
/// |---|---|
/// | [`CallError::new`], a `String` or `&'static str`, [`Shown`] | this text, which the model can act on |
/// | any other error, with `?` | only that the call failed; the text of the error is logged |
/// | [`CallError::protocol`], an [`ErrorObject`] | this error of the protocol |
/// | an [`AskError`], such as that the user declined | its text; that a capability is missing is -32021 |
/// | [`Stopped`] | its text |
///
/// `?` converts everything that a `Box<dyn Error + Send + Sync>` can be made of, `anyhow::Error`,
/// too. It does not show the text, because that of a library may contain what a client must not
/// read: a path, a query, an address. Show it where you know it:
///
/// ```
/// use stentor::{Shown, ToolError};
///
/// async fn lines(path: String) -> Result<usize, ToolError> {
///     // The client reads: No such file or directory.
///     let text = std::fs::read_to_string(&path).map_err(Shown)?;
///     // The client reads: too long.
///     if text.len() > 1_000_000 {
///         return Err(ToolError::new("too long"));
///     }
///     // The client reads: the tool failed. The log says why.
///     let factor: usize = std::env::var("FACTOR")?.parse()?;
///     Ok(text.lines().count() * factor)
/// }
/// # let _ = lines;
/// ```
///
/// `CallError` does not implement `Error`, because `?` could not convert other errors then.
#[derive(Clone, PartialEq)]
pub struct CallError(Kind);

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Message(String),
    /// An error whose text is for the log.
    Hidden(String),
    Protocol(ErrorObject),
    Ask(Box<InputRequired>),
}

/// An error whose text clients read; see [`CallError`].
///
/// ```
/// use stentor::{Shown, tool};
///
/// #[derive(Debug)]
/// struct OutOfPaper;
///
/// impl std::fmt::Display for OutOfPaper {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         f.write_str("out of paper")
///     }
/// }
///
/// // All errors of this tool are shown.
/// async fn print() -> Result<&'static str, Shown<OutOfPaper>> {
///     Err(OutOfPaper)?
/// }
///
/// let print = tool("print", print);
/// # let _ = print;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown<E>(pub E);

impl<E> From<E> for Shown<E> {
    fn from(error: E) -> Self {
        Self(error)
    }
}

impl<E: fmt::Display> From<Shown<E>> for CallError {
    fn from(Shown(error): Shown<E>) -> Self {
        Self::new(error.to_string())
    }
}

/// Why a tool failed; see [`CallError`].
pub type ToolError = CallError;
/// Why a resource could not be read; see [`CallError`].
pub type ResourceError = CallError;
/// Why a prompt could not be filled in; see [`CallError`].
pub type PromptError = CallError;

impl CallError {
    /// A failure that the model reads and can act on. A tool turns it into a result with
    /// `isError: true`, a resource or prompt into a JSON-RPC error.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self(Kind::Message(message.into()))
    }

    /// A JSON-RPC error with a code and data of the author's choice.
    #[must_use]
    pub fn protocol(error: ErrorObject) -> Self {
        Self(Kind::Protocol(error))
    }

    /// -32602: the request's parameters are wrong.
    #[must_use]
    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self::protocol(ErrorObject::invalid_params(message))
    }

    /// Questions instead of a failure. A modern client gets them as the response to its request,
    /// which ends, and sends the answers with a new request. Nothing waits meanwhile, and the code
    /// runs again from the start; see [`InputRequired`].
    #[must_use]
    pub fn input_required(asked: InputRequired) -> Self {
        Self(Kind::Ask(Box::new(asked)))
    }

    /// The error as a client of this era may read it. `what` and `subject` name the code that
    /// failed. Only the modern era has a code for a missing capability; legacy clients get it as an
    /// ordinary failure.
    pub(crate) fn for_client(self, what: &str, subject: &str, era: Era) -> Self {
        match self.0 {
            Kind::Hidden(error) => {
                crate::log!(error, what, subject, error, "a call failed");
                Self::new(format!("{what} failed"))
            }
            Kind::Protocol(ErrorObject { code: code::MISSING_CAPABILITY, message, data })
                if era == Era::Legacy =>
            {
                let missing = data.as_ref().and_then(|data| data.get("requiredCapabilities"));
                let missing = missing.map(|missing| format!(": {missing}"));
                Self::new(message + missing.as_deref().unwrap_or_default())
            }
            _ => self,
        }
    }

    pub(crate) fn into_kind(self) -> Kind {
        self.0
    }
}

impl fmt::Debug for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Message(text) | Kind::Hidden(text) => f.write_str(text),
            Kind::Protocol(error) => error.fmt(f),
            Kind::Ask(_) => f.write_str("input required"),
        }
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>> + 'static> From<E> for CallError {
    fn from(error: E) -> Self {
        let any = &error as &dyn Any;
        // An error of the protocol keeps its code through `?`.
        if let Some(protocol) = any.downcast_ref::<ErrorObject>() {
            return Self::protocol(protocol.clone());
        }
        if let Some(AskError::Unsupported(missing)) = any.downcast_ref() {
            return Self::protocol(ErrorObject::missing_capability(missing.clone()));
        }
        // A text is the author's own, and the engine's errors say nothing of the server.
        let is_shown = any.is::<String>() || any.is::<&'static str>();
        let is_shown = is_shown || any.is::<AskError>() || any.is::<Stopped>();
        let error = error.into();
        if is_shown {
            return Self::new(error.to_string());
        }
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Self(Kind::Hidden(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_author_chose_is_shown() {
        let hidden = CallError::from(std::io::Error::other("db://secret"));
        assert_eq!(hidden.into_kind(), Kind::Hidden("db://secret".into()));
        let boxed: Box<dyn Error + Send + Sync> = "no such host".into();
        assert_eq!(CallError::from(boxed).into_kind(), Kind::Hidden("no such host".into()));
        let shown = [
            CallError::from(Shown(std::io::Error::other("shown"))),
            CallError::from("shown"),
            CallError::from("shown".to_owned()),
            CallError::new("shown"),
        ];
        for error in shown {
            assert_eq!(error.into_kind(), Kind::Message("shown".into()));
        }
        let declined = CallError::from(AskError::Declined).into_kind();
        assert_eq!(declined, Kind::Message("the user declined".into()));
        let protocol = ErrorObject::invalid_params("no");
        assert_eq!(CallError::from(protocol.clone()).into_kind(), Kind::Protocol(protocol));
    }
}
