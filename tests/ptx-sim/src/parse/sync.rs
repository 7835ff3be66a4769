//! Decodes control flow, barriers and what warps do together (PTX ISA 9.7.12, 9.7.13, 9.7.16 and on).

use crate::inst::{BarReduce, BarrierKind, Call, CallArg, CallResult, Op, Redux, Shuffle, Src, Vote};
use crate::types::{Space, Type::*};

use super::operand::{Decoder, Operand, Result};

impl<'a> Decoder<'a, '_> {
    pub fn sync(&mut self, name: &str) -> Result<Option<Op>> {
        let op = match name {
            "bra" => {
                self.flag("uni");
                let label = self.label()?;
                self.body.branch_to(label);
                Op::Bra { target: u32::MAX }
            }
            "brx" => {
                self.require("an index", &[("idx", ())])?;
                self.flag("uni");
                let index = self.src(U32)?;
                let table = self.label()?;
                let Some(labels) = self.body.table(table) else { return Err(format!("no .branchtargets {table}")) };
                for &label in &labels {
                    self.body.branch_to(label);
                }
                Op::BraIndexed { index, targets: vec![u32::MAX; labels.len()].into() }
            }
            "call" => self.call()?,
            "ret" => {
                self.flag("uni");
                Op::Ret
            }
            "exit" => Op::Exit,
            "trap" | "brkpt" => Op::Trap,
            "bar" if self.flag("warp") => {
                self.require("an operation", &[("sync", ())])?;
                Op::BarWarp { members: self.src(B32)? }
            }
            "bar" | "barrier" => self.barrier()?,
            "membar" => {
                self.require("a level", &[("cta", ()), ("gl", ()), ("sys", ())])?;
                Op::Fence
            }
            "fence" => {
                self.choice(&[("sc", ()), ("acq_rel", ()), ("acquire", ()), ("release", ())]);
                self.require("a scope", &[("cta", ()), ("cluster", ()), ("gpu", ()), ("sys", ())])?;
                Op::Fence
            }
            "nanosleep" => {
                self.type_in(&[U32])?;
                self.src(U32)?;
                Op::Nothing
            }
            "griddepcontrol" => {
                self.require("an action", &[("launch_dependents", ()), ("wait", ())])?;
                Op::Nothing
            }
            "shfl" => {
                self.require("the form", &[("sync", ())])?;
                let kind = self.require(
                    "a mode",
                    &[
                        ("up", Shuffle::Up),
                        ("down", Shuffle::Down),
                        ("bfly", Shuffle::Butterfly),
                        ("idx", Shuffle::Index),
                    ],
                )?;
                self.type_in(&[B32])?;
                let (d, p) = self.dst_and_pred(B32)?;
                let (a, b, c, members) = (self.src(B32)?, self.src(B32)?, self.src(B32)?, self.src(B32)?);
                Op::Shfl { kind, d, p, a, b, c, members }
            }
            "vote" => {
                self.require("the form", &[("sync", ())])?;
                let kind = self.require(
                    "a mode",
                    &[("all", Vote::All), ("any", Vote::Any), ("uni", Vote::Uniform), ("ballot", Vote::Ballot)],
                )?;
                let d = if kind == Vote::Ballot {
                    self.type_in(&[B32])?;
                    self.dst(B32)?
                } else {
                    self.type_in(&[Pred])?;
                    self.pred_dst()?
                };
                Op::Vote { kind, d, a: self.pred_src()?, members: self.src(B32)? }
            }
            "match" => {
                let all = self.require("a mode", &[("all", true), ("any", false)])?;
                self.require("the form", &[("sync", ())])?;
                let ty = self.type_in(&[B32, B64])?;
                let (d, p) = self.dst_and_pred(B32)?;
                if p.is_some() && !all {
                    return Err("only match.all has a predicate".into());
                }
                Op::Match { all, d, p, a: self.src(ty)?, members: self.src(B32)? }
            }
            "activemask" => {
                self.type_in(&[B32])?;
                Op::ActiveMask { d: self.dst(B32)? }
            }
            "elect" => {
                self.require("the form", &[("sync", ())])?;
                let Operand::Pair(d, p) = self.next()? else { return Err("expected `d|p`".into()) };
                let Operand::Pred { pred: p, negated: false } = *p else { return Err("expected a predicate".into()) };
                let d = match *d {
                    Operand::Sink => None,
                    operand => Some(self.reg_of(operand, B32, false)?),
                };
                Op::Elect { d, p, members: self.src(B32)? }
            }
            "redux" => {
                self.require("the form", &[("sync", ())])?;
                let op = self.require(
                    "an operation",
                    &[
                        ("add", Redux::Add),
                        ("min", Redux::Min),
                        ("max", Redux::Max),
                        ("and", Redux::And),
                        ("or", Redux::Or),
                        ("xor", Redux::Xor),
                    ],
                )?;
                let bitwise = matches!(op, Redux::And | Redux::Or | Redux::Xor);
                let ty = self.type_in(if bitwise { &[B32] } else { &[U32, S32] })?;
                Op::Redux { op, ty, d: self.dst(ty)?, a: self.src(ty)?, members: self.src(B32)? }
            }
            _ => return Ok(None),
        };
        Ok(Some(op))
    }

    fn barrier(&mut self) -> Result<Op> {
        self.flag("cta");
        let kind = self.require(
            "an operation",
            &[("sync", BarrierKind::Sync), ("arrive", BarrierKind::Arrive), ("red", BarrierKind::Reduce)],
        )?;
        self.flag("aligned");
        let mut reduce = None;
        if kind == BarrierKind::Reduce {
            let op = self.require("a reduction", &[("popc", 0), ("and", 1), ("or", 2)])?;
            self.type_in(if op == 0 { &[U32] } else { &[Pred] })?;
            reduce = Some(match op {
                0 => BarReduce::Popc(self.dst(U32)?),
                1 => BarReduce::And(self.pred_dst()?),
                _ => BarReduce::Or(self.pred_dst()?),
            });
        }
        let id = self.src(U32)?;
        if matches!(id, Src::Imm(n) if n > 15) {
            return Err("a block has 16 barriers, 0 to 15".into());
        }
        let predicate = usize::from(reduce.is_some());
        let count = if self.operands_left() > predicate { Some(self.src(U32)?) } else { None };
        let reduce = match reduce {
            Some(reduce) => Some((reduce, self.pred_src()?)),
            None => None,
        };
        if kind == BarrierKind::Arrive && count.is_none() {
            return Err("bar.arrive needs a number of threads".into());
        }
        Ok(Op::Barrier { kind, id, count, reduce })
    }

    fn call(&mut self) -> Result<Op> {
        self.flag("uni");
        let mut results = Vec::new();
        let mut operand = self.next()?;
        if let Operand::List(parts) = operand {
            for part in parts {
                results.push(match part {
                    Operand::Reg(reg, ty) => CallResult::Reg(reg, ty),
                    Operand::Var(var, 0) if self.is_param(var) => CallResult::Var(var),
                    Operand::Sink => CallResult::Sink,
                    _ => return Err("a result is a register or a .param variable".into()),
                });
            }
            operand = self.next()?;
        }
        let Operand::Name(callee) = operand else { return Err("only direct calls are supported".into()) };
        let mut args = Vec::new();
        if self.operands_left() > 0 {
            let Operand::List(parts) = self.next()? else { return Err("expected arguments in parentheses".into()) };
            for part in parts {
                args.push(match part {
                    Operand::Reg(reg, _) => CallArg::Src(Src::Reg(reg)),
                    Operand::Var(var, 0) if self.is_param(var) => CallArg::Var(var),
                    Operand::Literal(literal) => {
                        let bits = literal.to_bits(B64).or(literal.to_bits(F32));
                        CallArg::Src(Src::Imm(bits.ok_or("not an argument")?))
                    }
                    _ => return Err("an argument is a register, a literal or a .param variable".into()),
                });
            }
        }
        self.body.call(callee, self.line);
        Ok(Op::Call(Box::new(Call { function: u32::MAX, results: results.into(), args: args.into() })))
    }

    fn is_param(&self, var: u16) -> bool {
        self.body.var(var).space == Space::Param
    }
}
