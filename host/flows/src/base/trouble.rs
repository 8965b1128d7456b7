//! Why a flow could not go on, when that is not its own fault: what passes by itself, and what does not.

use std::time::Duration;

use maxhost_model::{Class, Code, Problem};

/// Trouble that passes, and trouble that stays. The two are never mixed up, because only the first is tried again.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It passes: the flow is tried again from its last commit.
    Passing(Problem),
    /// It stays until a person does something: the flow waits in hospital, with the problem's code.
    Permanent(Problem),
}

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Trouble {
        match problem.class() {
            Class::Unavailable => Trouble::Passing(problem),
            Class::Failed | Class::Usage | Class::NotFound | Class::Refused => Trouble::Permanent(problem),
        }
    }
}

impl Trouble {
    /// What is wrong.
    pub fn problem(&self) -> &Problem {
        match self {
            Trouble::Passing(problem) | Trouble::Permanent(problem) => problem,
        }
    }

    /// A defect of the host: to try again would meet it again.
    pub fn defect(text: impl Into<String>) -> Trouble {
        Trouble::Permanent(Problem::new(Code::Internal, text))
    }
}

/// How people in front of the hospital read a problem: code and text. It may quote others, and every database can hold it.
pub(crate) fn reason(problem: &Problem) -> String {
    format!("{}: {}", problem.code, problem.message).replace('\0', "\\0")
}

/// How long a flow waits before it is tried again after trouble that is not its own: doubles up to half a minute.
pub(crate) fn backoff(attempt: u32) -> Duration {
    Duration::from_millis(100u64.saturating_mul(1 << attempt.min(9))).min(Duration::from_secs(30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_unavailable_passes_by_itself() {
        for code in Code::ALL {
            let trouble = Trouble::from(Problem::new(*code, "some trouble"));
            assert_eq!(matches!(trouble, Trouble::Passing(_)), code.class() == Class::Unavailable, "{code}");
        }
        assert!(matches!(Trouble::defect("a defect"), Trouble::Permanent(_)));
    }
}
