use super::*;
use galen_types::Origin;
use proptest::prelude::*;

fn row(number: u64, ids: &[u32], supervised: &[usize]) -> Tokenized {
    let mask = (0..ids.len()).map(|t| supervised.contains(&t)).collect();
    Tokenized::new(Origin::new("a", number + 1), number, ids.to_vec(), mask).unwrap()
}

/// The slow reading of a batch: for each target, the tokens its hidden state has seen, found by walking parents.
pub(super) fn seen(batch: &PackedBatch, index: u32) -> Vec<u32> {
    let mut at = batch.segments().iter().position(|s| s.start <= index && index < s.start + s.len);
    let mut end = index + 1;
    let mut context = Vec::new();
    while let Some(i) = at {
        let s = batch.segments()[i];
        let mut part = batch.ids()[s.start as usize..end as usize].to_vec();
        part.extend(context);
        context = part;
        at = s.parent.map(|p| p as usize);
        end = s.parent.map_or(0, |p| batch.segments()[p as usize].start + batch.segments()[p as usize].len);
    }
    context
}

/// A row, a context and the token predicted behind it.
pub(super) type Reading = (u32, Vec<u32>, u32);

/// The readings of a batch, and what the rows themselves say it should be.
pub(super) fn readings(batch: &PackedBatch, rows: &[&Tokenized]) -> (Vec<Reading>, Vec<Reading>) {
    let found = batch.targets().iter().map(|t| (t.row, seen(batch, t.index), t.token)).collect();
    let mut expected = Vec::new();
    for (r, row) in rows.iter().enumerate() {
        for t in (0..row.ids().len()).filter(|t| row.mask()[*t]) {
            expected.push((r as u32, row.ids()[..t].to_vec(), row.ids()[t]));
        }
    }
    (found, expected)
}

#[test]
fn a_common_beginning_is_laid_once() {
    let rows = [row(5, &[1, 2, 3, 4, 5], &[3, 4]), row(6, &[1, 2, 3, 6], &[3]), row(7, &[8, 9], &[1])];
    let rows: Vec<&Tokenized> = rows.iter().collect();
    let batch = pack(&rows, Some(3)).unwrap();
    assert_eq!(batch.ids(), [1, 2, 3, 4, 5, 6, 8, 9]);
    let segments: Vec<_> = batch.segments().iter().map(|s| (s.start, s.len, s.parent, s.position)).collect();
    assert_eq!(segments, [(0, 3, None, 0), (3, 2, Some(0), 3), (5, 1, Some(0), 3), (6, 2, None, 0)]);
    let targets: Vec<_> = batch.targets().iter().map(|t| (t.index, t.token, t.row)).collect();
    assert_eq!(targets, [(2, 4, 0), (3, 5, 0), (2, 6, 1), (6, 9, 2)]);
    assert_eq!(batch.rows(), [5, 5, 5, 5, 5, 6, 7, 7]);
    assert_eq!(batch.positions(), [0, 1, 2, 3, 4, 3, 0, 1]);

    let plain = pack(&rows, None).unwrap();
    assert_eq!(plain.ids().len(), 11);
    assert!(plain.segments().iter().all(|s| s.parent.is_none()));
}

#[test]
fn identical_rows_and_rows_within_rows_keep_a_token_of_their_own() {
    let rows = [row(0, &[1, 2, 3, 4], &[3]), row(1, &[1, 2, 3, 4], &[1, 3]), row(2, &[1, 2, 3], &[2])];
    let rows: Vec<&Tokenized> = rows.iter().collect();
    let batch = pack(&rows, Some(1)).unwrap();
    let (found, expected) = readings(&batch, &rows);
    assert_eq!(found, expected);
    assert!(batch.ids().len() < 11);
}

#[test]
fn prefixes_nest() {
    let rows = [
        row(0, &[1, 1, 2, 2, 3], &[4]),
        row(1, &[7, 7, 7, 7], &[3]),
        row(2, &[1, 1, 2, 2, 4], &[4]),
        row(3, &[1, 1, 5, 5], &[3]),
    ];
    let rows: Vec<&Tokenized> = rows.iter().collect();
    let batch = pack(&rows, Some(2)).unwrap();
    let parents: Vec<_> = batch.segments().iter().map(|s| s.parent).collect();
    assert_eq!(parents, [None, Some(0), Some(1), Some(1), Some(0), None]);
    assert_eq!(batch.ids(), [1, 1, 2, 2, 3, 4, 5, 5, 7, 7, 7, 7]);
}

#[test]
fn no_rows_make_no_batch() {
    assert!(pack(&[], None).is_err());
}

#[test]
fn plans_fill_bins() {
    let lengths = [5, 9, 3, 2, 8, 1, 12];
    let order = [6, 0, 1, 2, 3, 4, 5];
    assert_eq!(plan_batches(&lengths, &order, 3, None), [vec![6, 0, 1], vec![2, 3, 4], vec![5]]);
    // By hand: 12 alone (longer than a bin), 9, 8, then 5 alone, 3 with 5, 2 with 8, 1 with 9.
    let bins = plan_batches(&lengths, &order, 1, Some(10));
    assert_eq!(bins, [vec![6], vec![0, 2], vec![1, 5], vec![3, 4]]);
    assert_eq!(plan_batches(&lengths, &order, 2, Some(10)), [vec![6, 0, 2], vec![1, 3, 4, 5]]);
    assert!(plan_batches(&[], &[], 4, Some(10)).is_empty());
}

fn any_rows() -> impl Strategy<Value = Vec<Tokenized>> {
    // Two tokens of vocabulary make common beginnings frequent.
    let one = (prop::collection::vec(0..2_u32, 2..12), prop::collection::vec(any::<bool>(), 12));
    prop::collection::vec(one, 1..10).prop_map(|rows| {
        rows.into_iter()
            .enumerate()
            .map(|(i, (ids, mut mask))| {
                mask.truncate(ids.len());
                mask[ids.len() - 1] = true;
                Tokenized::new(Origin::new("a", i as u64 + 1), i as u64, ids, mask).unwrap()
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn expanding_a_batch_gives_back_the_rows(rows in any_rows(), min_shared in prop::option::of(1..6_usize)) {
        let rows: Vec<&Tokenized> = rows.iter().collect();
        let batch = pack(&rows, min_shared).unwrap();
        let (found, expected) = readings(&batch, &rows);
        prop_assert_eq!(found, expected);
        let total: usize = rows.iter().map(|r| r.ids().len()).sum();
        prop_assert!(batch.ids().len() <= total);
        // Whole rows, last token included, stand at the ends of the segments.
        let mut ends: Vec<_> = batch.segments().iter().map(|s| seen(&batch, s.start + s.len - 1)).collect();
        for row in &rows {
            let at = ends.iter().position(|e| e == row.ids());
            prop_assert!(at.is_some());
            ends.swap_remove(at.unwrap());
        }
    }

    #[test]
    fn bins_hold_every_row_once_and_overflow_never(
        lengths in prop::collection::vec(1..40_usize, 0..60), seed in any::<u64>(), size in 1..4_usize,
    ) {
        let order = crate::order::epoch_order(lengths.len(), seed, 0);
        let batches = plan_batches(&lengths, &order, size, Some(32));
        let mut all = batches.concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
        for bin in plan_batches(&lengths, &order, 1, Some(32)) {
            let total: usize = bin.iter().map(|r| lengths[*r]).sum();
            prop_assert!(total <= 32 || bin.len() == 1);
        }
    }
}
