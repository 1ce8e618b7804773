use super::super::tests::{Reading, readings};
use super::*;
use galen_types::{Origin, TokenLogProbs, TokenizedAnswer, TokenizedPair, TokenizedPrompt};
use proptest::prelude::*;

fn answer(row: u64, prompt: &[u32], said: &[u32]) -> TokenizedAnswer {
    let ids = [prompt, said].concat();
    TokenizedAnswer::new(Origin::new("a", row + 1), row, ids, prompt.len()).unwrap()
}

fn sequences(answers: &[TokenizedAnswer]) -> Vec<&Tokenized> {
    answers.iter().map(TokenizedAnswer::tokens).collect()
}

#[test]
fn a_pair_computes_its_prompt_and_common_beginning_once() {
    let prompt: Vec<u32> = (100..110).collect();
    let (chosen, rejected) = (answer(4, &prompt, &[1, 2, 3]), answer(4, &prompt, &[1, 2, 4, 5]));
    let pair = TokenizedPair::new(chosen, rejected, None).unwrap();
    let packed = pack_sequences(&pair.sequences(), Sharing::WithinRow).unwrap();
    let segments: Vec<_> =
        packed.batch().segments().iter().map(|s| (s.start, s.len, s.parent, s.position)).collect();
    assert_eq!(segments, [(0, 12, None, 0), (12, 1, Some(0), 12), (13, 2, Some(0), 12)]);
    assert_eq!(packed.ranges(), [0..3, 3..7]);
    let targets: Vec<_> = packed.batch().targets().iter().map(|t| (t.index, t.token, t.row)).collect();
    let want = [(9, 1, 0), (10, 2, 0), (11, 3, 0), (9, 1, 1), (10, 2, 1), (11, 4, 1), (13, 5, 1)];
    assert_eq!(targets, want);
    assert_eq!(packed_tokens(&pair.sequences(), Sharing::WithinRow), 15);
    assert_eq!(packed_tokens(&pair.sequences(), Sharing::Apart), 13 + 14);
    assert_eq!(packed_tokens(&[], Sharing::Apart), 0);
}

#[test]
fn rows_share_only_where_they_may() {
    let system: Vec<u32> = (100..110).collect();
    let asked = |q: u32| [&system[..], &[q; 9]].concat();
    let answers = [
        answer(0, &asked(1), &[5, 6]),
        answer(0, &asked(1), &[7]),
        answer(1, &asked(2), &[5]),
        answer(1, &asked(2), &[8]),
    ];
    let tokens = |sharing| packed_tokens(&sequences(&answers), sharing);
    assert_eq!(tokens(Sharing::Apart), 21 + 20 + 20 + 20);
    assert_eq!(tokens(Sharing::WithinRow), 19 + 3 + 19 + 2);
    assert_eq!(tokens(Sharing::AcrossRows), 10 + 9 + 3 + 9 + 2);
    let packed = pack_sequences(&sequences(&answers), Sharing::WithinRow).unwrap();
    assert_eq!(packed.batch().rows().iter().filter(|r| **r == 0).count(), 22);
}

#[test]
fn a_group_of_samples_shares_its_prompt() {
    let prompt = TokenizedPrompt::new(Origin::new("a", 1), 0, (0..20).collect()).unwrap();
    let answers: Vec<_> = (0..8).map(|i| prompt.answered(&[50 + i, 60, 61]).unwrap()).collect();
    let packed = pack_sequences(&sequences(&answers), Sharing::WithinRow).unwrap();
    assert_eq!(
        (packed.len(), packed.batch().ids().len(), packed.batch().segments().len()),
        (8, 20 + 8 * 3, 9)
    );
    assert!(prompt.answered(&[]).is_err());
}

#[test]
fn values_go_to_sequences_and_back() {
    let answers = [answer(0, &[1, 2], &[3, 4]), answer(0, &[1, 2], &[5]), answer(1, &[9], &[8, 7, 6])];
    let packed = pack_with(&sequences(&answers), Sharing::AcrossRows, 1).unwrap();
    let logps = TokenLogProbs(vec![-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]);
    let split = packed.split(&logps).unwrap();
    assert_eq!(split, [&[-1.0, -2.0][..], &[-3.0], &[-4.0, -5.0, -6.0]]);
    assert_eq!(packed.scatter(&split).unwrap(), logps.0);
    assert_eq!(packed.spread(&[1.0, 2.0, 3.0]).unwrap(), [1.0, 1.0, 2.0, 3.0, 3.0, 3.0]);
    assert!(packed.split(&TokenLogProbs(vec![0.0; 5])).is_err());
    assert!(packed.spread(&[1.0]).is_err());
    assert!(packed.scatter(&split[..2]).is_err());
    assert!(packed.scatter(&[&[0.0][..], &[0.0], &[0.0; 4]]).is_err());
}

/// Answers to few prompts over a small vocabulary, so that much is common.
fn any_answers() -> impl Strategy<Value = Vec<TokenizedAnswer>> {
    let said = prop::collection::vec(0..2_u32, 1..6);
    let prompts = prop::collection::vec(prop::collection::vec(0..2_u32, 1..12), 1..4);
    (prompts, prop::collection::vec((0..4_usize, said), 1..10)).prop_map(|(prompts, answers)| {
        let one = |(p, said): (usize, Vec<u32>)| {
            let p = p % prompts.len();
            answer(p as u64, &prompts[p], &said)
        };
        answers.into_iter().map(one).collect()
    })
}

proptest! {
    /// Every sequence read through its ancestors is the sequence, whatever is shared.
    #[test]
    fn packed_says_what_apart_says(answers in any_answers(), min_shared in 1..6_usize) {
        let sequences = sequences(&answers);
        let apart = pack_with(&sequences, Sharing::Apart, min_shared).unwrap();
        prop_assert!(apart.batch().segments().iter().all(|s| s.parent.is_none()));
        for sharing in [Sharing::WithinRow, Sharing::AcrossRows] {
            let packed = pack_with(&sequences, sharing, min_shared).unwrap();
            let (found, expected): (Vec<Reading>, Vec<Reading>) = readings(packed.batch(), &sequences);
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(&found, &readings(apart.batch(), &sequences).0);
            prop_assert_eq!(packed.ranges(), apart.ranges());
            prop_assert!(packed.batch().ids().len() <= apart.batch().ids().len());
            if sharing == Sharing::WithinRow {
                // No token is computed for two rows.
                for s in packed.batch().segments() {
                    let row = |at: u32| packed.batch().rows()[at as usize];
                    let parent = s.parent.map_or(row(s.start), |p| row(packed.batch().segments()[p as usize].start));
                    prop_assert_eq!(row(s.start), parent);
                }
            }
        }
    }
}
