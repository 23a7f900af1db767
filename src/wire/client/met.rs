//! What a request met at each controller that it went to, and so what a person is told where none of them
//! could help: that nobody answered, or how many did and what they said.
//!
//! Of each controller the latest attempt counts, whichever round it was in: a time limit cuts the last
//! round short, and what that one alone met would be chance.

use super::error::Ended;
use crate::status::{Code, Failure};

/// In the order in which they were first asked.
#[derive(Default)]
pub(super) struct Met(Vec<(String, Ended)>);

impl Met {
    pub(super) fn note(&mut self, address: &str, ended: Ended) {
        match self.0.iter_mut().find(|(known, _)| known == address) {
            Some((_, latest)) => *latest = ended,
            None => self.0.push((address.to_owned(), ended)),
        }
    }

    /// The failure that says most, in words that tell how many answered.
    pub(super) fn in_all(&self) -> Option<Failure> {
        let all = self.0.iter().map(|(_, ended)| ended);
        // Of equals the first.
        let weightiest = all.rev().max_by_key(|ended| weight(ended))?;
        let mut failure = weightiest.failure().clone();
        match weightiest {
            Ended::Answered(_) => failure.message.push_str(&self.missing()),
            Ended::Unanswered(_) if failure.code == Code::NotTrusted => {}
            Ended::Unanswered(_) => {
                failure.message = format!("no controller answered: {}", self.reasons());
            }
        }
        Some(failure)
    }

    /// Nothing where all answered.
    fn missing(&self) -> String {
        let silent = self.0.iter().filter(|(_, ended)| !ended.is_answer());
        let silent: Vec<&str> = silent.map(|(address, _)| address.as_str()).collect();
        let answers = match self.0.len() - silent.len() {
            1 => "answers",
            _ => "answer",
        };
        match silent.split_last() {
            None => String::new(),
            Some((last, others)) => {
                let (names, do_not) = match others {
                    [] => ((*last).to_owned(), "does not"),
                    others => (format!("{} and {last}", others.join(", ")), "do not"),
                };
                let (answered, asked) = (self.0.len() - silent.len(), self.0.len());
                format!(": {answered} of {asked} controllers {answers}, {names} {do_not}")
            }
        }
    }

    fn reasons(&self) -> String {
        let reasons = self.0.iter().map(|(_, ended)| &*ended.failure().message);
        reasons.collect::<Vec<_>>().join(", ")
    }
}

/// What is told first: somebody's answer rather than nobody's, and what leaves the outcome open rather
/// than anything else.
fn weight(ended: &Ended) -> u8 {
    let open = ended.failure().code == Code::OutcomeUnknown;
    match ended {
        Ended::Answered(_) if open => 4,
        Ended::Answered(_) => 3,
        Ended::Unanswered(_) if open => 2,
        Ended::Unanswered(failure) if failure.code == Code::NotTrusted => 0,
        Ended::Unanswered(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: Code, said: &str) -> Ended {
        Ended::Answered(Failure::new(code, said))
    }

    fn refused(address: &str) -> Ended {
        let message = format!("cannot reach {address}: connection refused");
        Ended::Unanswered(Failure::new(Code::Unreachable, message))
    }

    fn told(met: &Met) -> (Code, String) {
        let failure = met.in_all().unwrap();
        (failure.code, failure.message)
    }

    #[test]
    fn of_a_cut_round_the_controllers_before_it_count_too() {
        let mut met = Met::default();
        met.note("h1:1", answered(Code::NoLeader, "nobody leads"));
        met.note("h2:1", refused("h2:1"));
        met.note("h3:1", refused("h3:1"));
        met.note("h2:1", refused("h2:1"));
        let words = "nobody leads: 1 of 3 controllers answers, h2:1 and h3:1 do not";
        assert_eq!(told(&met), (Code::NoLeader, words.to_owned()));
        met.note("h2:1", answered(Code::NoQuorum, "no quorum"));
        let words = "nobody leads: 2 of 3 controllers answer, h3:1 does not";
        assert_eq!(told(&met), (Code::NoLeader, words.to_owned()));
        met.note("h3:1", answered(Code::OutcomeUnknown, "who knows"));
        assert_eq!(told(&met), (Code::OutcomeUnknown, "who knows".to_owned()));
    }

    #[test]
    fn that_nobody_answered_is_said_with_the_reason_of_each() {
        let mut met = Met::default();
        assert!(met.in_all().is_none());
        met.note("h1:1", refused("h1:1"));
        met.note("h2:1", refused("h2:1"));
        let words = "no controller answered: cannot reach h1:1: connection refused, \
                     cannot reach h2:1: connection refused";
        assert_eq!(told(&met), (Code::Unreachable, words.to_owned()));
        let silence = Failure::new(Code::OutcomeUnknown, "h1:1 was silent");
        met.note("h1:1", Ended::Unanswered(silence));
        let (code, words) = told(&met);
        assert_eq!(code, Code::OutcomeUnknown);
        assert!(words.starts_with("no controller answered: h1:1 was silent, "));
    }

    #[test]
    fn a_controller_that_is_silent_hides_no_answer_of_another() {
        let mut met = Met::default();
        let silence = Failure::new(Code::OutcomeUnknown, "h1:1 was silent");
        met.note("h1:1", Ended::Unanswered(silence));
        met.note("h2:1", answered(Code::NoQuorum, "no quorum"));
        assert_eq!(told(&met).0, Code::NoQuorum);
    }

    #[test]
    fn a_certificate_that_nobody_accepts_is_said_as_it_is() {
        let mut met = Met::default();
        let refused = Failure::new(Code::NotTrusted, "not issued by the CA");
        met.note("h1:1", Ended::Unanswered(refused.clone()));
        met.note("h2:1", Ended::Unanswered(refused));
        assert_eq!(told(&met).1, "not issued by the CA");
    }
}
