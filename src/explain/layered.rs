//! Positions for a drawing of a directed acyclic graph in rows, after Sugiyama, Tagawa and Toda, "Methods for Visual
//! Understanding of Hierarchical System Structures" (1981).
//!
//! ```text
//! rank     of a node: the longest path to it; edges that pass rows get a bend in each
//! order    within rows: sweeps by the mean position of neighbours, the arrangement with the fewest crossings is kept
//! place    x: sweeps towards the mean of neighbours, from the axis in the middle; in a row, the least-squares fit that keeps order and gaps
//! ```

use std::collections::BTreeMap;

/// Nodes as boxes of equal height, edges as lines of points. Sizes and positions are in the units of the widths given.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawing {
    pub width: f64,
    pub height: f64,
    /// Centre of each node.
    pub nodes: Vec<(f64, f64)>,
    /// As the edges given, without repetition.
    pub edges: Vec<Edge>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    pub from: usize,
    pub to: usize,
    /// From the lower side of one box to the upper side of the other.
    pub points: Vec<(f64, f64)>,
}

/// Sizes of a drawing.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub node_height: f64,
    /// Between boxes of a row.
    pub gap: f64,
    /// Between rows.
    pub row_gap: f64,
}

/// More boxes and bends than anyone can look at, and the work of the sweeps.
const MAX_POINTS: usize = 20_000;
const ORDER_SWEEPS: usize = 12;
const PLACE_SWEEPS: usize = 40;
/// A bend pulls harder than a box, so that long edges are straight.
const BEND_WEIGHT: f64 = 8.0;
const BEND_WIDTH: f64 = 6.0;
const MIDDLE_WEIGHT: f64 = 0.05;

/// A node or a bend.
struct Item {
    rank: usize,
    width: f64,
    /// 1 for a node.
    weight: f64,
    up: Vec<usize>,
    down: Vec<usize>,
}

impl Item {
    fn is_bend(&self) -> bool {
        self.weight > 1.0
    }
}

/// Draws a graph whose edges lead from lower to higher numbers. `None` if it is too large to be looked at.
pub fn layered(widths: &[f64], edges: &[(usize, usize)], sizes: Sizes) -> Option<Drawing> {
    let mut edges = edges.to_vec();
    edges.sort_unstable();
    edges.dedup();
    let ranks = ranks(widths.len(), &edges);
    let bends: usize = edges.iter().map(|&(a, b)| ranks[b] - ranks[a] - 1).sum();
    if widths.len() + bends > MAX_POINTS {
        return None;
    }
    let mut items: Vec<Item> = (0..widths.len())
        .map(|n| Item { rank: ranks[n], width: widths[n], weight: 1.0, up: vec![], down: vec![] })
        .collect();
    let chains: Vec<Vec<usize>> = edges.iter().map(|&(a, b)| chain(&mut items, a, b)).collect();
    let mut rows = rows(&items);
    order(&mut rows, &items);
    let xs = place(&rows, &items, sizes.gap);

    let left = |n: usize| xs[n] - items[n].width / 2.0;
    let min = (0..items.len()).map(left).fold(f64::INFINITY, f64::min);
    let max = (0..items.len()).map(|n| xs[n] + items[n].width / 2.0).fold(f64::NEG_INFINITY, f64::max);
    let pitch = sizes.node_height + sizes.row_gap;
    let centre = |n: usize| (xs[n] - min, items[n].rank as f64 * pitch + sizes.node_height / 2.0);
    let half = sizes.node_height / 2.0;
    let route = |(&(from, to), chain): (&(usize, usize), &Vec<usize>)| {
        let mut points = vec![];
        for &n in chain {
            let (x, y) = centre(n);
            // A line runs straight through the height of the rows that it passes.
            match n {
                _ if n == from => points.push((x, y + half)),
                _ if n == to => points.push((x, y - half)),
                _ => points.extend([(x, y - half), (x, y + half)]),
            }
        }
        Edge { from, to, points }
    };
    Some(Drawing {
        width: (max - min).max(0.0),
        height: (rows.len() as f64 * pitch - sizes.row_gap).max(0.0),
        nodes: (0..widths.len()).map(centre).collect(),
        edges: edges.iter().zip(&chains).map(route).collect(),
    })
}

/// Longest paths; a node without operands comes right before its first reader.
fn ranks(nodes: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut ranks = vec![0; nodes];
    let mut has_operands = vec![false; nodes];
    let mut by_target = edges.to_vec();
    by_target.sort_unstable_by_key(|&(a, b)| (b, a));
    for &(a, b) in &by_target {
        ranks[b] = ranks[b].max(ranks[a] + 1);
        has_operands[b] = true;
    }
    let mut first_reader: BTreeMap<usize, usize> = BTreeMap::new();
    for &(a, b) in edges.iter().filter(|&&(a, _)| !has_operands[a]) {
        let first = first_reader.entry(a).or_insert(usize::MAX);
        *first = (*first).min(ranks[b]);
    }
    for (node, reader) in first_reader {
        ranks[node] = reader - 1;
    }
    ranks
}

/// Links two nodes by way of new bends in the rows between; gives all of them in order.
fn chain(items: &mut Vec<Item>, from: usize, to: usize) -> Vec<usize> {
    let mut chain = vec![from];
    for rank in items[from].rank + 1..items[to].rank {
        chain.push(items.len());
        items.push(Item { rank, width: BEND_WIDTH, weight: BEND_WEIGHT, up: vec![], down: vec![] });
    }
    chain.push(to);
    for pair in chain.windows(2) {
        items[pair[0]].down.push(pair[1]);
        items[pair[1]].up.push(pair[0]);
    }
    chain
}

fn rows(items: &[Item]) -> Vec<Vec<usize>> {
    let mut rows = vec![vec![]; items.iter().map(|i| i.rank + 1).max().unwrap_or(0)];
    for (n, item) in items.iter().enumerate() {
        rows[item.rank].push(n);
    }
    rows
}

fn order(rows: &mut Vec<Vec<usize>>, items: &[Item]) {
    let mut position = vec![0; items.len()];
    let number = |row: &[usize], position: &mut [usize]| row.iter().enumerate().for_each(|(at, &n)| position[n] = at);
    rows.iter().for_each(|row| number(row, &mut position));
    let (mut best, mut fewest) = (rows.clone(), crossings(rows, items, &position));
    for sweep in 0..ORDER_SWEEPS {
        let down = sweep % 2 == 0;
        let sequence: Vec<usize> = if down { (0..rows.len()).collect() } else { (0..rows.len()).rev().collect() };
        for r in sequence {
            let mean = |n: usize| {
                let neighbours = if down { &items[n].up } else { &items[n].down };
                let sum: usize = neighbours.iter().map(|&m| position[m]).sum();
                if neighbours.is_empty() { position[n] as f64 } else { sum as f64 / neighbours.len() as f64 }
            };
            let mut keyed: Vec<(f64, usize)> = rows[r].iter().map(|&n| (mean(n), n)).collect();
            // Stable: those that cannot be told apart stay as they are.
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            rows[r] = keyed.into_iter().map(|(_, n)| n).collect();
            number(&rows[r], &mut position);
        }
        let crossings = crossings(rows, items, &position);
        if crossings < fewest {
            (best, fewest) = (rows.clone(), crossings);
        }
        if fewest == 0 {
            break;
        }
    }
    *rows = best;
}

/// Pairs of edges between neighbouring rows that cross.
fn crossings(rows: &[Vec<usize>], items: &[Item], position: &[usize]) -> usize {
    let mut total = 0;
    for row in rows {
        let mut ends: Vec<usize> = vec![];
        for &n in row {
            let mut own: Vec<usize> = items[n].down.iter().map(|&m| position[m]).collect();
            own.sort_unstable();
            total += own.iter().map(|end| ends.iter().filter(|e| *e > end).count()).sum::<usize>();
            ends.extend(own);
        }
    }
    total
}

fn place(rows: &[Vec<usize>], items: &[Item], gap: f64) -> Vec<f64> {
    let mut xs = vec![0.0; items.len()];
    for row in rows {
        let wanted = vec![0.0; row.len()];
        fit(row, &wanted, items, gap, &mut xs);
    }
    for sweep in 0..PLACE_SWEEPS {
        // The last sweeps look both ways, which centres boxes between what is above and below.
        let both = sweep >= PLACE_SWEEPS / 2;
        let (up, down) = (sweep % 2 == 0 || both, sweep % 2 == 1 || both);
        let sequence: Vec<usize> =
            if sweep % 2 == 0 { (0..rows.len()).collect() } else { (0..rows.len()).rev().collect() };
        for r in sequence {
            let wanted: Vec<f64> = match &rows[r][..] {
                // What everything passes through makes one straight spine.
                [_] => vec![0.0],
                row => row.iter().map(|&n| wanted(&items[n], items, &xs, up, down)).collect(),
            };
            fit(&rows[r], &wanted, items, gap, &mut xs);
        }
    }
    xs
}

/// The mean over neighbours above, below or both. Boxes are drawn a little to the middle, without which long graphs drift
/// sideways; bends follow one another.
fn wanted(item: &Item, items: &[Item], xs: &[f64], up: bool, down: bool) -> f64 {
    let above = item.up.iter().filter(|_| up);
    let pull = |m: usize| if item.is_bend() && items[m].is_bend() { BEND_WEIGHT } else { 1.0 };
    let (mut sum, mut weight) = (0.0, if item.is_bend() { 0.0 } else { MIDDLE_WEIGHT });
    for &m in above.chain(item.down.iter().filter(|_| down)) {
        sum += pull(m) * xs[m];
        weight += pull(m);
    }
    sum / weight
}

/// Moves a row to the positions nearest to `wanted` (weighted least squares) that keep its order and gaps: pooling of
/// adjacent violators, on positions from which the room to the left is subtracted.
fn fit(row: &[usize], wanted: &[f64], items: &[Item], gap: f64, xs: &mut [f64]) {
    struct Pool {
        sum: f64,
        weight: f64,
        count: usize,
    }
    let mut room = vec![0.0; row.len()];
    for at in 1..row.len() {
        room[at] = room[at - 1] + (items[row[at - 1]].width + items[row[at]].width) / 2.0 + gap;
    }
    let mut pools: Vec<Pool> = vec![];
    for (at, &n) in row.iter().enumerate() {
        let weight = items[n].weight;
        let mut pool = Pool { sum: weight * (wanted[at] - room[at]), weight, count: 1 };
        while let Some(last) = pools.pop_if(|last| last.sum / last.weight > pool.sum / pool.weight) {
            pool = Pool { sum: last.sum + pool.sum, weight: last.weight + pool.weight, count: last.count + pool.count };
        }
        pools.push(pool);
    }
    let mut at = 0;
    for pool in pools {
        for _ in 0..pool.count {
            xs[row[at]] = pool.sum / pool.weight + room[at];
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { node_height: 10.0, gap: 5.0, row_gap: 20.0 };

    fn draw(nodes: usize, edges: &[(usize, usize)]) -> Drawing {
        layered(&vec![30.0; nodes], edges, SIZES).unwrap()
    }

    /// Boxes of a row keep their distance, edges lead down.
    fn check(d: &Drawing) {
        for (i, a) in d.nodes.iter().enumerate() {
            assert!(a.0 >= 15.0 - 1e-9 && a.0 <= d.width - 15.0 + 1e-9 && a.1 <= d.height, "{a:?}");
            let same = d.nodes[i + 1..].iter().filter(|b| (b.1 - a.1).abs() < 1e-9);
            assert!(same.into_iter().all(|b| (b.0 - a.0).abs() >= 35.0 - 1e-9), "{:?}", d.nodes);
        }
        for e in &d.edges {
            assert!(e.points.windows(2).all(|p| p[1].1 > p[0].1), "{e:?}");
        }
    }

    #[test]
    fn a_chain_is_straight() {
        let d = draw(4, &[(0, 1), (1, 2), (2, 3)]);
        check(&d);
        assert_eq!(d.nodes, [(15.0, 5.0), (15.0, 35.0), (15.0, 65.0), (15.0, 95.0)]);
        assert_eq!((d.width, d.height), (30.0, 100.0));
    }

    #[test]
    fn a_residual_passes_beside_its_block() {
        let d = draw(4, &[(0, 1), (1, 2), (2, 3), (0, 3), (0, 3)]);
        check(&d);
        let skip = d.edges.iter().find(|e| e.to == 3 && e.from == 0).unwrap();
        assert_eq!(skip.points.len(), 6);
        for &(x, _) in &skip.points[1..5] {
            assert!((x - d.nodes[1].0).abs() >= 15.0 + 5.0, "{d:?}");
        }
        assert_eq!(d.edges.len(), 4);
    }

    #[test]
    fn branches_that_can_be_drawn_without_crossings_are() {
        // Written so that the order of the nodes crosses: 0 -> {1, 2}, 1 -> 4, 2 -> 3, {3, 4} -> 5.
        let d = draw(6, &[(0, 1), (0, 2), (1, 4), (2, 3), (3, 5), (4, 5)]);
        check(&d);
        assert_eq!(d.nodes[1].0 < d.nodes[2].0, d.nodes[4].0 < d.nodes[3].0, "{d:?}");
    }

    #[test]
    fn an_input_that_is_read_late_stands_before_its_reader() {
        let d = draw(5, &[(0, 1), (1, 2), (2, 4), (3, 4)]);
        check(&d);
        assert!((d.nodes[3].1 - d.nodes[2].1).abs() < 1e-9);
    }

    #[test]
    fn nothing_and_too_much() {
        assert_eq!(draw(0, &[]).nodes, []);
        let n = 300;
        let all: Vec<(usize, usize)> = (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b))).collect();
        assert!(layered(&vec![1.0; n], &all, SIZES).is_none());
    }
}
