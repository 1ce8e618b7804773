//! Several rewards at once.

use crate::bench::{completions, samples};
use galen_reward::{Completion, Reward, RewardError, RewardSet, Turn};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Waits for its partner before it answers; only two that run at the same time get anywhere.
struct Partner {
    tell: Mutex<Sender<()>>,
    hear: Mutex<Receiver<()>>,
    value: f64,
    turn: Turn,
}

impl Reward for Partner {
    fn score(&self, completions: &[Completion<'_>]) -> Result<Vec<Option<f64>>, RewardError> {
        self.tell.lock().unwrap().send(()).unwrap();
        self.hear.lock().unwrap().recv_timeout(Duration::from_mins(1)).expect("the other one runs too");
        Ok(vec![Some(self.value); completions.len()])
    }

    fn turn(&self) -> Turn {
        self.turn
    }
}

#[test]
fn rewards_that_wait_run_beside_each_other_and_beside_the_others() {
    for second in [Turn::Beside, Turn::Caller] {
        let (a, b) = (channel(), channel());
        let partner = |tell: Sender<()>, hear, value, turn| {
            Box::new(Partner { tell: Mutex::new(tell), hear: Mutex::new(hear), value, turn })
        };
        let set = RewardSet::new().with("a", 1.0, partner(a.0, b.1, 1.0, Turn::Beside)).with(
            "b",
            10.0,
            partner(b.0, a.1, 2.0, second),
        );
        let samples = samples(2);
        let rewards = set.score(&completions(&samples)).unwrap();
        assert_eq!(rewards.functions[0].label, "a");
        assert_eq!(rewards.total, [Some(21.0), Some(21.0)]);
    }
}

struct Says(Result<Vec<Option<f64>>, &'static str>, Turn, Arc<Mutex<Vec<std::thread::ThreadId>>>);

impl Reward for Says {
    fn score(&self, _: &[Completion<'_>]) -> Result<Vec<Option<f64>>, RewardError> {
        self.2.lock().unwrap().push(std::thread::current().id());
        self.0.clone().map_err(|e| RewardError::Outside { reward: "x".into(), source: e.into() })
    }

    fn turn(&self) -> Turn {
        self.1
    }
}

fn says(answer: Result<Vec<Option<f64>>, &'static str>, turn: Turn) -> Box<dyn Reward> {
    Box::new(Says(answer, turn, Arc::default()))
}

#[test]
fn the_first_error_in_order_is_told() {
    let samples = samples(1);
    let set = RewardSet::new()
        .with("a", 1.0, says(Ok(vec![Some(1.0)]), Turn::Caller))
        .with("b", 1.0, says(Err("first"), Turn::Beside))
        .with("c", 1.0, says(Err("second"), Turn::Caller));
    assert_eq!(set.score(&completions(&samples)).unwrap_err().to_string(), "reward `x`: first");
}

#[test]
fn an_answer_is_as_long_as_the_question_and_finite() {
    let samples = samples(2);
    let check = |answer: Vec<Option<f64>>, expect: &str| {
        let set = RewardSet::new().with("judge", 1.0, says(Ok(answer), Turn::Caller));
        let error = set.score(&completions(&samples)).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    check(vec![None], "reward `judge`: gave `1` values for `2` completions");
    check(vec![None, Some(f64::NAN)], "gave `NaN` for a completion of the row at datasets/a.jsonl:17");
    check(vec![Some(f64::INFINITY), None], "gave `inf`");
    let huge = RewardSet::new().with("a", 10.0, says(Ok(vec![Some(f64::MAX); 2]), Turn::Caller));
    assert!(huge.score(&completions(&samples)).unwrap_err().to_string().contains("the weighted sum"));
}

#[test]
fn what_computes_stays_on_the_calling_thread() {
    let (samples, seen) = (samples(1), Arc::default());
    let set = RewardSet::new()
        .with("a", 1.0, Box::new(Says(Ok(vec![None]), Turn::Caller, Arc::clone(&seen))))
        .with("b", 1.0, Box::new(Says(Ok(vec![None]), Turn::Caller, Arc::clone(&seen))));
    assert_eq!(set.score(&completions(&samples)).unwrap().total, [None]);
    assert_eq!(*seen.lock().unwrap(), [std::thread::current().id(); 2]);
}

#[test]
fn no_completions_no_rewards() {
    let set = RewardSet::new().with("a", 1.0, says(Ok(Vec::new()), Turn::Beside));
    assert_eq!(set.score(&[]).unwrap().total, []);
}
