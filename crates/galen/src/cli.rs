//! The commands and the flags they share. Each command's own flags lie beside its code.

use crate::commands::{
    completions, data, doctor, eval, export, generate, init, man, merge, models, plan, quickstart, run_batch,
    serve, synth, train, verify,
};
use crate::config::{Config, Device};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;
use std::num::NonZeroU16;
use std::str::FromStr;

/// Fine-tune a language model on a domain's facts, and prove it on questions it never saw.
#[derive(Debug, Parser)]
#[command(name = "galen", version, arg_required_else_help = true, propagate_version = false)]
#[command(after_help = "Start with `galen quickstart`. Results go to stdout, progress to stderr.\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 130/143 stopped by a signal.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Flags of every command.
    #[command(flatten)]
    pub globals: Globals,
}

impl Cli {
    /// What the words of a command line ask for, the program's name first.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = minus_signs(Self::command());
        let matches = command.try_get_matches_from_mut(words)?;
        Self::from_arg_matches(&matches).map_err(|e| e.format(&mut command))
    }
}

/// A number below 0 is a flag's value, for the flag to refuse: not a flag that is unknown.
fn minus_signs(command: clap::Command) -> clap::Command {
    let takes = |arg: &clap::Arg| arg.get_action().takes_values();
    let command = command.mut_args(|a| if takes(&a) { a.allow_negative_numbers(true) } else { a });
    command.mut_subcommands(minus_signs)
}

/// Flags of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Globals {
    /// Say more: a line for every step, the rows that were left out
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// CPU threads; default: all cores. The result is the same to the bit whatever the number
    #[arg(long, global = true, value_name = "N", value_parser = threads)]
    pub threads: Option<NonZeroU16>,
    /// Where to train and to answer: `auto`, `cpu` or `cuda:N`; for training instead of the configuration's `device`
    #[arg(long, global = true, value_name = "DEVICE")]
    pub device: Option<Device>,
    /// Train on so many cards together, from that of `--device` on, instead of the configuration's `gpus`
    #[arg(long, global = true, value_name = "N", value_parser = gpus)]
    pub gpus: Option<u64>,
    /// Open no socket: caches and local files only (`HF_HUB_OFFLINE=1`: nothing from the hub)
    #[arg(long, global = true)]
    pub offline: bool,
    /// Results as JSON on stdout
    #[arg(long, global = true)]
    pub json: bool,
}

impl Globals {
    /// The card that `--device` names.
    pub fn card(&self) -> Option<u32> {
        self.device.and_then(Device::card)
    }

    /// The flag that asks `command` for what it does not do on a card.
    pub fn misplaced(&self, command: &Command) -> Option<String> {
        match (self.card(), self.gpus) {
            (_, Some(_)) if matches!(command, Command::Doctor(_)) => Some("--gpus".into()),
            _ if command.trains() => None,
            (_, Some(n)) => Some(format!("--gpus {n}")),
            (Some(n), _) if !command.answers_on_a_card() => Some(format!("--device cuda:{n}")),
            _ => None,
        }
    }

    /// Takes over where to train.
    pub fn place(&self, config: &mut Config) {
        config.device = self.device.unwrap_or(config.device);
        config.gpus = self.gpus.unwrap_or(config.gpus);
    }
}

fn gpus(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "takes a whole number of 1 or more".into())
}

fn threads(text: &str) -> Result<NonZeroU16, String> {
    text.parse().map_err(|_| format!("takes 1 to {}", u16::MAX))
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The whole thing once on real clinical data: fetch, train, evaluate, compare
    Quickstart(quickstart::Args),
    /// Write a commented configuration for your own data
    Init(init::Args),
    /// Check a configuration; estimate memory and time before anything is loaded
    Plan(plan::Args),
    /// Fine-tune an adapter
    Train(train::Args),
    /// Align an adapter to preferences (`rl:` of the configuration)
    Align(train::Args),
    /// Make training data from a domain's facts: prompts, models' answers, filters
    Synth(synth::Args),
    /// Evaluate a model, and adapters against it, on held-out questions
    Eval(eval::Args),
    /// Write a model or an adapter in another program's format
    Export(export::Args),
    /// Merge adapters into one, or into their base
    Merge(merge::Args),
    /// Prove that what is served is what was trained: tokens, predictions, weights, the end of answers
    Verify(verify::Args),
    /// Complete a prompt or answer in a chat
    Generate(generate::Args),
    /// Serve a model and adapters over it to OpenAI's clients
    Serve(serve::Args),
    /// Answer a file of requests in OpenAI's batch format
    RunBatch(run_batch::Args),
    /// Look at data sets, check and split them; duplicates, contamination, selection by a target
    Data(data::Args),
    /// List, fetch and delete what lies in the caches
    Models(models::Args),
    /// Say what was found on this machine and which kernels are in use
    Doctor(doctor::Args),
    /// Print shell completions
    Completions(completions::Args),
    /// Print the manual page
    Man(man::Args),
}

impl Command {
    /// Whether it trains, or says what training would take.
    pub fn trains(&self) -> bool {
        matches!(
            self,
            Self::Quickstart(_) | Self::Train(_) | Self::Align(_) | Self::Plan(_) | Self::Doctor(_)
        )
    }

    /// Whether it answers, which cards do too.
    pub fn answers_on_a_card(&self) -> bool {
        matches!(self, Self::Eval(_) | Self::Generate(_) | Self::Serve(_) | Self::RunBatch(_))
    }
}

/// A number of things, or a share of them: `100` or `0.1`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// So many.
    Count(u64),
    /// Such a share of all, above 0 and below 1.
    Share(f64),
}

impl FromStr for Limit {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let value: f64 = text.parse().map_err(|_| "expected a number, or a share below 1".to_owned())?;
        match value {
            v if v > 0.0 && v < 1.0 => Ok(Self::Share(v)),
            v if v >= 1.0 && v.fract() == 0.0 && v < 9.0e15 => Ok(Self::Count(v as u64)),
            _ => Err("expected a whole number of 1 or more, or a share between 0 and 1".into()),
        }
    }
}

impl Limit {
    /// How many of `n` things that is; at least one where there is one.
    pub fn of(self, n: usize) -> usize {
        match self {
            Self::Count(k) => usize::try_from(k).unwrap_or(usize::MAX).min(n),
            Self::Share(s) => ((n as f64 * s).ceil() as usize).min(n),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        minus_signs(Cli::command()).debug_assert();
    }

    #[test]
    fn lines_people_type() {
        for line in [
            "quickstart --fast --out q",
            "init --model m.gguf --data d.jsonl -o c.yaml",
            "plan c.yaml --check-config --json",
            "plan --list-keys",
            "train c.yaml --set lora_r=8 --set=datasets[0].path=x.jsonl --resume --threads 2",
            "train c.yaml --resume-from-checkpoint out/checkpoint-7",
            "train c.yaml --resume_from_checkpoint out/checkpoint-7",
            "train c.yaml --overwrite",
            "train c.yaml --profile trace.json",
            "align c.yaml --set rl_beta=0.2 --resume",
            "doctor --json",
            "eval --model m --adapter a --adapter b --tasks t,u --num_fewshot 3 --apply_chat_template --limit 0.5 \
             --include_path d --system_instruction s --log_samples --output_path f.json",
            "eval --model m --tasks t --num-fewshot 3 --apply-chat-template --out f.json",
            "eval --model m --task t --fast_decode",
            "eval ls",
            "eval validate t.yaml",
            "generate --model m --adapter a -p hello -n 20 --temp 0.7 --top-k 40 --top-p 0.9 --min-p 0.05 \
             --repeat-penalty 1.1 -s 7 --chat --system s --fast-decode",
            "generate --adapter run --prompt hi --max-tokens 5 --temperature 0 --seed 1 --max_tokens=9",
            "export --model m --adapter a --format gguf --quantize q4_k_m --out m.gguf",
            "merge --model m --adapter a --out merged.gguf --max-kl 0.1 --requantize plain --samples t.txt",
            "merge --model m --adapter a:0.7 --adapter b:-0.3 --method dare_ties --density 0.5 --seed 3 \
             --majority-sign-method frequency --svd-rank 8 --out c",
            "export --model run --format ollama --quantize Q4_K_M --out o",
            "export --model run --format gguf-lora -o a.gguf",
            "data inspect c.yaml --stage packed --rows 3",
            "data check d.jsonl --model m",
            "data split d.jsonl --group-by section --test 0.1 --out parts",
            "data split d.jsonl --group_by section --test 200 --out parts",
            "data dedup a.jsonl b.csv --threshold 0.7 --field text -o kept.jsonl --check",
            "data dedup a.jsonl --type alpaca --ngram 2 --on_bad_row skip --fail-on-duplicates",
            "data contamination a.jsonl b.jsonl --against test.jsonl task.yaml --whole_from 3 -o clean.jsonl",
            "data align a.jsonl --target t.jsonl --budget 0.5 --seed 2 --out kept.jsonl --weight_field w",
            "data align a.jsonl --target t.yaml --method embedding --model m --budget 100 -o kept.jsonl",
            "serve --model m --adapter a=run --lora-modules b=other --host 127.0.0.1 --port 0 --api-key-file k --max_num_seqs 4",
            "run-batch -i in.jsonl -o out.jsonl --model m --adapter a=run",
            "completions zsh",
            "man",
            "--offline -vv --device cuda:1 eval ls",
            "train c.yaml --gpus 4",
        ] {
            let words = std::iter::once("galen").chain(line.split_whitespace()).map(Into::into);
            // The repeated flag of the second `generate` line is meant to fail; all others parse.
            let repeated = line.contains("--max_tokens=9");
            assert_eq!(Cli::read(words).is_err(), repeated, "{line}");
        }
    }

    #[test]
    fn lines_that_are_wrong_exit_with_2() {
        for line in [
            "",
            "trian c.yaml",
            "train",
            "eval",
            "eval --model m --tasks t --limit 1.5",
            "plan",
            "--device gpu eval ls",
            "--threads 0 eval ls",
            "train c.yaml --gpus 0",
            "generate -p x",
            "train c.yaml --resume --overwrite",
        ] {
            let words = std::iter::once("galen").chain(line.split_whitespace()).map(Into::into);
            let error = Cli::read(words).err().unwrap_or_else(|| panic!("{line} parses"));
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_number_below_zero_is_the_flag_s_to_refuse() {
        let words = "galen eval --model m --tasks t --limit -1".split_whitespace().map(Into::into);
        let said = Cli::read(words).expect_err("no limit").to_string();
        assert!(said.contains("invalid value '-1' for '--limit"), "{said}");
    }

    #[test]
    fn limits() {
        assert_eq!("10".parse::<Limit>().unwrap().of(7), 7);
        assert_eq!("0.1".parse::<Limit>().unwrap().of(45), 5);
        assert!(
            "0".parse::<Limit>().is_err() && "1.5".parse::<Limit>().is_err() && "x".parse::<Limit>().is_err()
        );
    }
}
