//! How a layer is computed: the algorithm, and how its work is cut for registers, caches and threads. What a cost model proposes, a
//! tuner measures and an artefact remembers.
//!
//! ```text
//! direct tile=14x2 channels=256 share=rows/16 prefetch
//! F(4x4,3x3) tile=13x2 band=7
//! gathered chunks=16
//! ```
//!
//! A strategy is found by the layer's *signature*: the operator, and how its tensors lie as far as strategies depend on that. What
//! is fused behind is not in it. Layers of one signature are computed alike. A strategy that does not fit its layer is not used, and
//! the [decision](Decision) says why.

use crate::x86::{Isa, Winograd};
use lehr_ir::NodeId;
use lehr_ir::ops::Conv;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A register tile at most so large; rows and stacks of blocks are cut into equal parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cut {
    pub pixels: usize,
    pub blocks: usize,
}

/// What is computed in parallel, and into how many chunks each image is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Share {
    /// Chunks of rows; each takes all weights.
    Rows(usize),
    /// Groups of output channels times chunks of rows; each takes its own weights. A thread does its chunks of a group at once.
    Channels(usize),
}

/// A direct convolution in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Direct {
    pub tile: Cut,
    /// Input channels that a tile sums at once.
    pub channels: usize,
    pub share: Share,
    /// Whether tiles bring the next weights nearer.
    pub prefetch: bool,
}

/// A convolution by Winograd's algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByWinograd {
    pub kind: Winograd,
    pub tile: Cut,
    /// Rows of tiles that are transformed and multiplied together; all of an image's if `None`, and the weights are then read once.
    pub band: Option<usize>,
}

/// A direct convolution that looks its input channels up in tables. Which of its output blocks go together follows from its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gathered {
    /// Chunks of an image that are computed in parallel.
    pub chunks: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strategy {
    Direct(Direct),
    Winograd(ByWinograd),
    Gathered(Gathered),
}

impl From<Direct> for Strategy {
    fn from(d: Direct) -> Strategy {
        Strategy::Direct(d)
    }
}

impl From<ByWinograd> for Strategy {
    fn from(w: ByWinograd) -> Strategy {
        Strategy::Winograd(w)
    }
}

impl From<Gathered> for Strategy {
    fn from(g: Gathered) -> Strategy {
        Strategy::Gathered(g)
    }
}

impl Strategy {
    /// Winograd's algorithm, if it is that.
    pub fn algorithm(&self) -> Option<Winograd> {
        match self {
            Strategy::Direct(_) | Strategy::Gathered(_) => None,
            Strategy::Winograd(w) => Some(w.kind),
        }
    }
}

/// A strategy and what the cost model says of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weighed {
    pub strategy: Strategy,
    pub cycles: f64,
}

/// A tuned strategy that a layer of its signature cannot use, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    pub strategy: Strategy,
    pub why: String,
}

/// What was decided for a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub node: NodeId,
    pub signature: String,
    pub chosen: Weighed,
    /// What was tuned for the signature, where that could not be chosen.
    pub unfit: Option<Unfit>,
    /// The other ways to compute it, of any algorithm that may be used, the cheapest first.
    pub others: Vec<Weighed>,
    /// Algorithms that the options exclude.
    pub excluded: Vec<Weighed>,
}

/// Strategies by signature, to be used instead of the cost model's.
pub type Tuned = BTreeMap<String, Strategy>;

/// `conv 1x64x56x56 * 64x64x3x3 s1,1 p1,1,1,1 d1,1 g1 avx512`, and words for the tensors' `form`: `flat` (planes without borders, each
/// a row), `plain` (an input that is not in blocks), `reordered` (channels in other slots), `prologue` (it computes the map before it),
/// `gathered` (it looks its channels up). Where algorithms compete there are none: those want blocks in order, and leave 1x1 kernels
/// alone.
pub fn signature(op: &Conv, x: &[usize], w: &[usize], isa: Isa, form: &[&str]) -> String {
    let list = |v: &[usize], with: &str| v.iter().map(usize::to_string).collect::<Vec<_>>().join(with);
    let (strides, pads, dilations) = (list(&op.strides, ","), list(&op.pads, ","), list(&op.dilations, ","));
    let (x, w, groups, isa) = (list(x, "x"), list(w, "x"), op.groups, isa.name());
    let form: String = form.iter().map(|word| format!(" {word}")).collect();
    format!("conv {x} * {w} s{strides} p{pads} d{dilations} g{groups} {isa}{form}")
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.pixels, self.blocks)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Share::Rows(n) => write!(f, "rows/{n}"),
            Share::Channels(n) => write!(f, "channels/{n}"),
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Strategy::Direct(Direct { tile, channels, share, prefetch }) => {
                write!(f, "direct tile={tile} channels={channels} share={share}")?;
                if *prefetch { write!(f, " prefetch") } else { Ok(()) }
            }
            Strategy::Winograd(ByWinograd { kind, tile, band }) => {
                write!(f, "{} tile={tile} band=", kind.name())?;
                match band {
                    Some(rows) => write!(f, "{rows}"),
                    None => write!(f, "all"),
                }
            }
            Strategy::Gathered(Gathered { chunks }) => write!(f, "gathered chunks={chunks}"),
        }
    }
}

/// Largest number in a strategy: beyond it nothing is cut.
const MOST: usize = 1 << 20;

fn number(text: &str) -> Result<usize, String> {
    let n = text.parse::<usize>().ok().filter(|n| (1..=MOST).contains(n));
    n.ok_or_else(|| format!("'{text}' is no number from 1 to {MOST}"))
}

fn cut(text: &str) -> Result<Cut, String> {
    let (pixels, blocks) = text.split_once('x').ok_or_else(|| format!("'{text}' is no tile like 14x2"))?;
    Ok(Cut { pixels: number(pixels)?, blocks: number(blocks)? })
}

fn share(text: &str) -> Result<Share, String> {
    match text.split_once('/') {
        Some(("rows", n)) => Ok(Share::Rows(number(n)?)),
        Some(("channels", n)) => Ok(Share::Channels(number(n)?)),
        _ => Err(format!("'{text}' is neither rows/N nor channels/N")),
    }
}

impl FromStr for Strategy {
    type Err = String;

    fn from_str(text: &str) -> Result<Strategy, String> {
        let mut words = text.split(' ');
        // An empty text has one word as well, the empty one.
        let name = words.next().unwrap_or_default();
        let mut next = |key: &str| {
            let word = words.next().and_then(|w| w.strip_prefix(key)).and_then(|w| w.strip_prefix('='));
            word.ok_or_else(|| format!("'{text}' has no {key}= where it belongs"))
        };
        let strategy = match Winograd::ALL.into_iter().find(|kind| kind.name() == name) {
            Some(kind) => {
                let tile = cut(next("tile")?)?;
                let band = match next("band")? {
                    "all" => None,
                    rows => Some(number(rows)?),
                };
                Strategy::Winograd(ByWinograd { kind, tile, band })
            }
            None if name == "direct" => {
                let tile = cut(next("tile")?)?;
                let (channels, share) = (number(next("channels")?)?, share(next("share")?)?);
                let prefetch = text.ends_with(" prefetch");
                Strategy::Direct(Direct { tile, channels, share, prefetch })
            }
            None if name == "gathered" => Strategy::Gathered(Gathered { chunks: number(next("chunks")?)? }),
            None => return Err(format!("'{name}' is no algorithm that this version of lehr has")),
        };
        // What was left over would be dropped.
        if strategy.to_string() == text { Ok(strategy) } else { Err(format!("'{text}' is not how lehr writes it")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_there_and_back() {
        let texts = [
            "direct tile=14x2 channels=256 share=rows/16 prefetch",
            "direct tile=7x3 channels=64 share=channels/1",
            "F(4x4,3x3) tile=13x2 band=7",
            "F(2x2,5x5) tile=28x1 band=all",
            "F(4x4,3x3)/2 tile=6x4 band=all",
            "gathered chunks=16",
        ];
        for text in texts {
            let strategy: Strategy = text.parse().unwrap();
            assert_eq!(strategy.to_string(), text);
        }
    }

    #[test]
    fn text_that_is_not_quite_a_strategy_is_refused() {
        let wrong = [
            "",
            "direct",
            "direct tile=14 channels=256 share=rows/16",
            "direct tile=0x2 channels=256 share=rows/16",
            "direct tile=14x2 channels=256 share=rows",
            "direct tile=14x2 channels=256 share=rows/16 prefetch prefetch",
            "direct  tile=14x2 channels=256 share=rows/16",
            "F(9x9,3x3) tile=13x2 band=7",
            "F(4x4,3x3) tile=13x2 band=some",
            "F(4x4,3x3)/3 tile=13x2 band=7",
            "F(4x4,3x3) tile=13x2 band=7 more",
            "F(4x4,3x3) tile=99999999999x2 band=7",
            "gathered",
            "gathered chunks=0",
            "gathered chunks=16 prefetch",
        ];
        for text in wrong {
            assert!(text.parse::<Strategy>().is_err(), "{text}");
        }
    }
}
