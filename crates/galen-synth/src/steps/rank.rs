//! Answers compared two by two, each pair in both orders (Zheng et al.: Judging LLM-as-a-Judge with MT-Bench and Chatbot
//! Arena, 2023: a judge prefers what it reads first).

use super::{each, shown};
use crate::ask::{Ask, ENGINE};
use crate::context::{Context, Tally};
use crate::error::{Stop, SynthError};
use crate::journal::Rows;
use crate::prompt::{PROMPT, Prompt};
use crate::registry::{EachRow, Setup, Step, StepEntry};
use crate::row::Row;
use crate::steps::judge::choice;
use galen_reward::{ConfigError, Kind, Param};
use serde_json::{Map, Value, json};

pub(crate) const ENTRY: StepEntry = StepEntry {
    name: "rank",
    about: "a list of answers compared two by two, in both orders",
    doc: "For each pair in the list `candidates` the template `judge_pair` sees `first` and `second` and is to be answered with A or B; both \
          orders are asked. A win is one in both orders, anything else a tie of half a point each. Writes `scores` (points over \
          comparisons, in the list's order), `best` and `worst`. The report has how often the two orders agree.",
    params: &[PROMPT, ENGINE, PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::with("candidates", Kind::Text, "\"candidates\"", "the field with the list of answers, at most 16"),
    Param::with(
        "rubric",
        Kind::Text,
        "\"Which answer is more correct, clear and useful?\"",
        "what is judged",
    ),
];

const MAX_CANDIDATES: usize = 16;

struct Rank {
    prompt: Prompt,
    ask: Ask,
    candidates: String,
    rubric: String,
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn Step>, ConfigError> {
    Ok(Box::new(Rank {
        prompt: Prompt::new(setup, Some("judge_pair"))?,
        ask: Ask::new(setup)?,
        candidates: setup.options.filled("candidates")?,
        rubric: setup.options.filled("rubric")?,
    }))
}

impl Rank {
    fn text(
        &self,
        cx: &Context<'_>,
        rows: &Rows,
        at: usize,
        row: &Row,
        pair: [&str; 2],
    ) -> Result<String, Stop> {
        let more = Map::from_iter([
            ("first".to_owned(), pair[0].into()),
            ("second".to_owned(), pair[1].into()),
            ("rubric".to_owned(), self.rubric.as_str().into()),
        ]);
        self.prompt.of(cx, rows, at, row, more)
    }

    /// Points of the first over the second: 1, 0.5 or 0; `None` where a reply says neither.
    fn compare(
        &self,
        cx: &Context<'_>,
        tally: &mut Tally,
        rows: &Rows,
        at: usize,
        row: &Row,
        pair: [&str; 2],
    ) -> Result<Option<f64>, Stop> {
        let letters = ["A".to_owned(), "B".to_owned()];
        let mut first_wins = [false; 2];
        for (i, wins) in first_wins.iter_mut().enumerate() {
            let order = if i == 0 { pair } else { [pair[1], pair[0]] };
            let prompt = self.text(cx, rows, at, row, order)?;
            let reply = self.ask.one(cx, tally, row, &prompt)?;
            let Some(said) = choice(&reply.text, &letters) else { return Ok(None) };
            *wins = (said == "A") == (i == 0);
        }
        let agree = first_wins[0] == first_wins[1];
        tally.figure("both orders agree", f64::from(u8::from(agree)));
        Ok(Some(match (agree, first_wins[0]) {
            (true, true) => 1.0,
            (true, false) => 0.0,
            (false, _) => 0.5,
        }))
    }
}

impl Step for Rank {
    fn start<'a>(&'a self, cx: &'a Context<'a>, rows: &'a Rows) -> Result<EachRow<'a>, SynthError> {
        Ok(each(move |tally, at, row| {
            let list = row.texts(&self.candidates)?;
            if list.len() < 2 || list.len() > MAX_CANDIDATES {
                let what = format!("{} candidates, and 2 to {MAX_CANDIDATES} can be ranked", list.len());
                return Err(Stop::failed("candidates", what));
            }
            let (mut points, mut of) = (vec![0.0; list.len()], vec![0_usize; list.len()]);
            for a in 0..list.len() {
                for b in a + 1..list.len() {
                    if let Some(won) = self.compare(cx, tally, rows, at, &row, [&list[a], &list[b]])? {
                        points[a] += won;
                        points[b] += 1.0 - won;
                        of[a] += 1;
                        of[b] += 1;
                    }
                }
            }
            if of.contains(&0) {
                return Err(Stop::failed("no choice in the reply", "an answer could not be compared"));
            }
            let scores: Vec<f64> = points.iter().zip(&of).map(|(p, n)| p / *n as f64).collect();
            let place = |better: fn(f64, f64) -> bool| {
                (1..scores.len()).fold(0, |best, i| if better(scores[i], scores[best]) { i } else { best })
            };
            let (best, worst) = (list[place(|a, b| a > b)].clone(), list[place(|a, b| a < b)].clone());
            let scores: Vec<Value> = scores.iter().map(|s| json!(s)).collect();
            Ok(vec![row.with("scores", scores).with("best", best).with("worst", worst)])
        }))
    }

    fn prompt(&self, cx: &Context<'_>, rows: &Rows, at: usize) -> Result<Option<String>, String> {
        shown(rows, at, |row| {
            let list = row.texts(&self.candidates)?;
            let get = |i: usize| list.get(i).map_or("", String::as_str);
            self.text(cx, rows, at, row, [get(0), get(1)])
        })
    }
}
