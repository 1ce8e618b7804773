//! From tokenized rows to batches: rows laid end to end without padding, their common beginnings once.
//!
//! ```text
//! rows:     a b c d e     a b c f     x y          (share_prefixes, shortest shared run 3)
//! segments: [a b c]  <- [d e]  <- [f]    [x y]     <- has the parent [a b c]
//! ```
//!
//! The hidden state of `c` predicts `d` for the first row and `f` for the second: two targets at one index.

use galen_types::{InvariantError, PackedBatch, Segment, Target, Tokenized};
use std::collections::BTreeSet;

mod sequences;
pub use sequences::{Sharing, pack_sequences, pack_to_ends, packed_tokens};

/// Shortest run of tokens worth a segment of its own: below it the bookkeeping of one more segment in every
/// attention call costs more than the tokens saved.
pub const MIN_SHARED_TOKENS: usize = 8;

/// The rows of each batch, as indexes into `lengths`, for rows visited in `order`.
///
/// `packing: None`: `micro_batch_size` rows a batch. `Some(sequence_len)`: a batch is `micro_batch_size` bins of at
/// most `sequence_len` tokens each, filled by best fit in order of decreasing length (ties: `order`). Bins come in the
/// place of their first row, and rows within a batch in `order`. A row longer than a bin has one to itself.
pub fn plan_batches(
    lengths: &[usize],
    order: &[usize],
    micro_batch_size: usize,
    packing: Option<usize>,
) -> Vec<Vec<usize>> {
    let size = micro_batch_size.max(1);
    let Some(sequence_len) = packing else {
        return order.chunks(size).map(<[usize]>::to_vec).collect();
    };
    let bins = best_fit(lengths, order, sequence_len);
    bins.chunks(size)
        .map(|bins| {
            let mut places: Vec<usize> = bins.concat();
            places.sort_unstable();
            places.into_iter().map(|place| order[place]).collect()
        })
        .collect()
}

/// Bins of places in `order`, each sorted, in the order of their first.
fn best_fit(lengths: &[usize], order: &[usize], capacity: usize) -> Vec<Vec<usize>> {
    let mut places: Vec<usize> = (0..order.len()).collect();
    places.sort_by_key(|p| std::cmp::Reverse(lengths[order[*p]]));
    let mut bins: Vec<Vec<usize>> = Vec::new();
    let mut free: BTreeSet<(usize, usize)> = BTreeSet::new();
    for place in places {
        let len = lengths[order[place]];
        let slot = free.range((len, 0)..).next().copied();
        let (left, bin) = slot.unwrap_or_else(|| {
            bins.push(Vec::new());
            (capacity.max(len), bins.len() - 1)
        });
        free.remove(&(left, bin));
        bins[bin].push(place);
        free.insert((left - len, bin));
    }
    for bin in &mut bins {
        bin.sort_unstable();
    }
    bins.sort_by_key(|bin| bin.first().copied());
    bins
}

/// Lays rows end to end. `min_shared`: runs of at least so many tokens with which several rows begin are shared
/// (usually [`MIN_SHARED_TOKENS`]); `None` shares nothing. Row `i` of `rows` is row `i` of the batch's targets.
///
/// Every row keeps at least its last token to itself, so identical rows are no special case.
///
/// Errors: no rows, or more tokens than `u32` counts.
pub fn pack(rows: &[&Tokenized], min_shared: Option<usize>) -> Result<PackedBatch, InvariantError> {
    match min_shared {
        None => pack_groups(rows, (0..rows.len()).map(|row| vec![row]), 1),
        Some(min_shared) => pack_groups(rows, std::iter::once((0..rows.len()).collect()), min_shared),
    }
}

/// The same, but that only rows of one group (indexes into `rows`, each in one group) share a beginning.
fn pack_groups(
    rows: &[&Tokenized],
    groups: impl IntoIterator<Item = Vec<usize>>,
    min_shared: usize,
) -> Result<PackedBatch, InvariantError> {
    pack_groups_to_ends(rows, groups, min_shared).map(|(batch, _)| batch)
}

/// Also gives where each row's last token stands.
fn pack_groups_to_ends(
    rows: &[&Tokenized],
    groups: impl IntoIterator<Item = Vec<usize>>,
    min_shared: usize,
) -> Result<(PackedBatch, Vec<u32>), InvariantError> {
    let total: usize = rows.iter().map(|r| r.ids().len()).sum();
    if rows.is_empty() || u32::try_from(total).is_err() {
        let what = format!("`{total}` tokens of `{}` rows do not make a batch", rows.len());
        return Err(InvariantError { origin: "packed batch".to_owned(), what });
    }
    let mut packer = Packer { rows, ids: Vec::new(), numbers: Vec::new(), segments: Vec::new() };
    let mut paths: Vec<Vec<u32>> = vec![Vec::new(); rows.len()];
    for group in groups {
        packer.share(group, min_shared.max(1), &mut paths);
    }
    let targets = packer.targets(&paths);
    // A row's last token is never shared, so it closes the row's last segment.
    let end = |path: &Vec<u32>| {
        path.last().map_or(0, |s| {
            let s = packer.segments[*s as usize];
            s.start + s.len - 1
        })
    };
    let ends = paths.iter().map(end).collect();
    Ok((PackedBatch::new(packer.ids, packer.segments, targets, packer.numbers)?, ends))
}

struct Packer<'a> {
    rows: &'a [&'a Tokenized],
    ids: Vec<u32>,
    numbers: Vec<u64>,
    segments: Vec<Segment>,
}

/// Rows `group` agree on their first `done` tokens, which `parent` and its ancestors hold.
struct Task {
    group: Vec<usize>,
    done: usize,
    parent: Option<u32>,
}

impl Packer<'_> {
    fn segment(&mut self, row: usize, range: std::ops::Range<usize>, parent: Option<u32>) -> u32 {
        let (start, len) = (self.ids.len() as u32, range.len() as u32);
        let position = range.start as u32;
        self.ids.extend_from_slice(&self.rows[row].ids()[range]);
        self.numbers.resize(self.ids.len(), self.rows[row].row());
        self.segments.push(Segment { start, len, parent, position });
        self.segments.len() as u32 - 1
    }

    /// A row's tokens that may be shared: all but its last.
    fn shareable(&self, row: usize) -> &[u32] {
        let ids = self.rows[row].ids();
        &ids[..ids.len() - 1]
    }

    /// Walks the tree of common beginnings. Rows sorted by their tokens have their common beginnings side by side,
    /// so a group falls apart wherever neighbours agree on too little.
    fn share(&mut self, mut all: Vec<usize>, min_shared: usize, paths: &mut [Vec<u32>]) {
        all.sort_by(|a, b| self.shareable(*a).cmp(self.shareable(*b)).then(a.cmp(b)));
        let mut stack = vec![Task { group: all, done: 0, parent: None }];
        while let Some(Task { group, done, parent }) = stack.pop() {
            if let [row] = group[..] {
                let path = self.segment(row, done..self.rows[row].ids().len(), parent);
                paths[row].push(path);
                continue;
            }
            let agreed = |pair: &[usize]| common(self.shareable(pair[0]), self.shareable(pair[1]));
            let agreements: Vec<usize> = group.windows(2).map(agreed).collect();
            let least = agreements.iter().copied().min().unwrap_or(0);
            let (mut done, mut parent) = (done, parent);
            if least >= done + min_shared {
                // The first row of the batch lends its number: it keys the prefix's dropout mask.
                let first = group.iter().copied().min().unwrap_or(group[0]);
                let shared = self.segment(first, done..least, parent);
                for row in &group {
                    paths[*row].push(shared);
                }
                (done, parent) = (least, Some(shared));
            }
            let mut parts: Vec<Vec<usize>> = vec![vec![group[0]]];
            for (row, agreement) in group[1..].iter().zip(&agreements) {
                match parts.last_mut() {
                    Some(part) if *agreement >= done + min_shared => part.push(*row),
                    _ => parts.push(vec![*row]),
                }
            }
            // The stack is walked from its end: parts come out in the order of their first row in the batch.
            parts.sort_by_key(|part| std::cmp::Reverse(part.iter().copied().min()));
            stack.extend(parts.into_iter().map(|group| Task { group, done, parent }));
        }
    }

    /// One target for each supervised token of each row, row by row.
    fn targets(&self, paths: &[Vec<u32>]) -> Vec<Target> {
        let mut targets = Vec::new();
        for (r, row) in self.rows.iter().enumerate() {
            let mut path = paths[r].iter().map(|s| self.segments[*s as usize]).peekable();
            for t in 1..row.ids().len() {
                if !row.mask()[t] {
                    continue;
                }
                // The hidden state of token t - 1 predicts token t.
                let before = t as u32 - 1;
                while path.next_if(|s| s.position + s.len <= before).is_some() {}
                if let Some(s) = path.peek() {
                    let index = s.start + (before - s.position);
                    targets.push(Target { index, token: row.ids()[t], row: r as u32 });
                }
            }
        }
        targets
    }
}

fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests;
