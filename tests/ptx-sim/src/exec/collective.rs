//! What the lanes of a warp do together: shuffles, votes, matches, reductions (PTX ISA 9.7.9.6, 9.7.13.8 and on).

use crate::fault::{Checked, FaultKind, trouble};
use crate::inst::{Op, Redux, Shuffle, Vote};
use crate::types::Type;

use super::Machine;
use super::warp::{Lanes, Warp, each};

impl Machine<'_> {
    pub(super) fn collective(&mut self, warp: &mut Warp<'_>, op: &Op, lanes: u32) -> Checked<()> {
        match op {
            Op::Shfl { kind, d, p, a, b, c, members } => {
                self.members(warp, *members, lanes)?;
                let (a, b, c) = (warp.get(*a, lanes)?, warp.get(*b, lanes)?, warp.get(*c, lanes)?);
                let mut out = [0; 32];
                let mut valid = 0;
                for lane in each(lanes) {
                    let i = lane as usize;
                    let (source, ok) = source_lane(*kind, lane, b[i] as u32, c[i] as u32);
                    if lanes >> source & 1 == 0 {
                        let message = format!("takes a value from lane {source}, which does not take part");
                        return trouble(FaultKind::DivergentBarrier, lane, message);
                    }
                    out[i] = a[source as usize];
                    valid |= u32::from(ok) << lane;
                }
                warp.set(*d, &out, lanes);
                if let Some(p) = p {
                    warp.set_pred(*p, valid, lanes);
                }
            }
            Op::Vote { kind, d, a, members } => {
                self.members(warp, *members, lanes)?;
                let yes = warp.pred_src(*a, lanes)? & lanes;
                let holds = match kind {
                    Vote::All => yes == lanes,
                    Vote::Any => yes != 0,
                    Vote::Uniform => yes == lanes || yes == 0,
                    Vote::Ballot => {
                        warp.set(*d, &[u64::from(yes); 32], lanes);
                        return Ok(());
                    }
                };
                warp.set_pred(*d, if holds { u32::MAX } else { 0 }, lanes);
            }
            Op::Match { all, d, p, a, members, .. } => {
                self.members(warp, *members, lanes)?;
                let a = warp.get(*a, lanes)?;
                let same = |i: usize| -> u32 { each(lanes).filter(|&j| a[j as usize] == a[i]).map(|j| 1 << j).sum() };
                let mut out = [0; 32];
                for lane in each(lanes) {
                    let mask = same(lane as usize);
                    out[lane as usize] = u64::from(if *all && mask != lanes { 0 } else { mask });
                }
                warp.set(*d, &out, lanes);
                if let Some(p) = p {
                    let holds = out[lanes.trailing_zeros() as usize] != 0;
                    warp.set_pred(*p, if holds { u32::MAX } else { 0 }, lanes);
                }
            }
            Op::ActiveMask { d } => warp.set(*d, &[u64::from(lanes); 32], lanes),
            Op::Elect { d, p, members } => {
                self.members(warp, *members, lanes)?;
                let leader = lanes.trailing_zeros();
                if let Some(d) = d {
                    warp.set(*d, &[u64::from(leader); 32], lanes);
                }
                warp.set_pred(*p, 1 << leader, lanes);
            }
            Op::Redux { op, ty, d, a, members } => {
                self.members(warp, *members, lanes)?;
                let value = reduce(*op, *ty, &warp.get(*a, lanes)?, lanes);
                warp.set(*d, &[value; 32], lanes);
            }
            _ => unreachable!("the dispatcher sends collectives here"),
        }
        Ok(())
    }
}

/// Which lane a shuffle takes from, and whether that lane is in range; its own lane where it is not.
pub fn source_lane(kind: Shuffle, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (b, clamp, segment) = (b & 31, c & 31, c >> 8 & 31);
    let last = lane & segment | clamp & !segment;
    let first = lane & segment;
    let (source, ok) = match kind {
        // Up counts down to `last`, which is the segment's first lane there.
        Shuffle::Up => (lane.wrapping_sub(b), lane as i32 - b as i32 >= last as i32),
        Shuffle::Down => (lane + b, lane + b <= last),
        Shuffle::Butterfly => (lane ^ b, lane ^ b <= last),
        Shuffle::Index => {
            let source = first | b & !segment;
            (source, source <= last)
        }
    };
    if ok { (source, true) } else { (lane, false) }
}

fn reduce(op: Redux, ty: Type, a: &Lanes, lanes: u32) -> u64 {
    let values = each(lanes).map(|lane| a[lane as usize]);
    let result = match op {
        Redux::Add => values.fold(0, u64::wrapping_add),
        Redux::And => values.fold(u64::MAX, |x, y| x & y),
        Redux::Or => values.fold(0, |x, y| x | y),
        Redux::Xor => values.fold(0, |x, y| x ^ y),
        Redux::Min => values.map(|v| ty.extend(v)).min().unwrap_or(0) as u64,
        Redux::Max => values.map(|v| ty.extend(v)).max().unwrap_or(0) as u64,
    };
    result & 0xffff_ffff
}
