//! Value numbering: an instruction without side effects that was met with the same operands is not emitted again.
//!
//! What is remembered holds where control flow has surely passed it. At a label, what was added since the first jump to it is
//! forgotten. Registers that are written more than once are forgotten as operands when they are written, and at labels that no jump
//! has led to yet, for such a label begins a loop that may write them further down.

use super::reg::{ClassId, Operand};
use std::collections::{HashMap, HashSet};

type Key = (String, Vec<Operand>);

/// A register without its class as a type.
pub(super) type Any = (ClassId, u32);

#[derive(Default)]
pub(super) struct Numbering {
    known: HashMap<Key, (Any, usize)>,
    /// The keys in order of their times.
    log: Vec<Key>,
    /// Registers that may be written more than once.
    variables: HashSet<Any>,
    /// Keys that have a variable as an operand.
    of_variables: HashMap<Any, Vec<Key>>,
    /// By label: the time of the first jump to it.
    jumps: HashMap<u32, usize>,
}

impl Numbering {
    /// A point in time, to [`rewind`](Numbering::rewind) to.
    pub fn now(&self) -> usize {
        self.log.len()
    }

    pub fn find(&self, opcode: &str, operands: &[Operand]) -> Option<u32> {
        // A tuple of borrowed parts is no key of a map of owned ones.
        self.known.get(&(opcode.to_string(), operands.to_vec())).map(|&((_, n), _)| n)
    }

    pub fn add(&mut self, opcode: &str, operands: &[Operand], result: Any) {
        let key: Key = (opcode.to_string(), operands.to_vec());
        operands.iter().for_each(|o| self.note(o, &key));
        self.known.insert(key.clone(), (result, self.log.len()));
        self.log.push(key);
    }

    fn note(&mut self, operand: &Operand, key: &Key) {
        match operand {
            Operand::Reg(class, n) | Operand::Address(class, n, _) => {
                if self.variables.contains(&(*class, *n)) {
                    self.of_variables.entry((*class, *n)).or_default().push(key.clone());
                }
            }
            Operand::Vector(parts) => parts.iter().for_each(|o| self.note(o, key)),
            Operand::Imm(..) | Operand::Named(..) | Operand::Symbol(_) | Operand::Label(_) | Operand::Literal(_) => {}
        }
    }

    /// The register may be written more than once.
    pub fn variable(&mut self, r: Any) {
        self.variables.insert(r);
    }

    /// A variable is written.
    pub fn written(&mut self, r: Any) {
        assert!(self.variables.contains(&r), "a result that others may share is not written again");
        for key in self.of_variables.remove(&r).into_iter().flatten() {
            self.known.remove(&key);
        }
    }

    pub fn jump(&mut self, label: u32) {
        self.jumps.entry(label).or_insert(self.log.len());
    }

    pub fn label(&mut self, label: u32) {
        match self.jumps.get(&label) {
            Some(&time) => self.forget_since(time),
            None => {
                for key in std::mem::take(&mut self.of_variables).into_values().flatten() {
                    self.known.remove(&key);
                }
            }
        }
    }

    fn forget_since(&mut self, time: usize) {
        while self.log.len() > time {
            let key = self.log.pop().expect("longer than a length");
            if self.known.get(&key).is_some_and(|&(_, at)| at == self.log.len()) {
                self.known.remove(&key);
            }
        }
    }

    /// As at `time`, when there were so many labels and, by class, registers.
    pub fn rewind(&mut self, time: usize, labels: u32, registers: &[u32; 6]) {
        self.forget_since(time);
        self.jumps.retain(|&label, &mut at| label < labels && at <= time);
        self.variables.retain(|&(class, n)| n < registers[class as usize]);
    }
}

#[cfg(test)]
mod tests {
    use crate::ptx::func::{Cmp, Func, Special};
    use crate::ptx::reg::*;

    /// How often the text has an instruction.
    fn count(f: &Func, opcode: &str) -> usize {
        f.to_string().matches(opcode).count()
    }

    #[test]
    fn the_same_value_is_computed_once() {
        let mut f = Func::new("k".into(), 32);
        for _ in 0..3 {
            let thread = f.special(Special::ThreadX);
            f.add::<S32>(thread, 7);
        }
        assert_eq!((count(&f, "%tid.x"), count(&f, "add.s32")), (1, 1), "{f}");
    }

    #[test]
    fn what_a_variable_was_is_forgotten_when_it_changes_and_where_a_loop_begins() {
        let mut f = Func::new("k".into(), 32);
        let v = f.mov(1);
        f.add::<S32>(v, 7);
        let again = f.label();
        f.place(again);
        let next = f.add::<S32>(v, 7);
        f.set(v, next);
        f.add::<S32>(v, 7);
        assert_eq!(count(&f, "add.s32"), 3, "{f}");
    }

    #[test]
    fn what_may_have_been_jumped_over_is_forgotten() {
        let mut f = Func::new("k".into(), 32);
        let thread = f.special(Special::ThreadX);
        f.add::<S32>(thread, 1);
        let (p, skip) = (f.setp::<S32>(Cmp::Eq, thread, 0), f.label());
        f.jump_if(p, true, skip);
        f.add::<S32>(thread, 2);
        f.place(skip);
        f.add::<S32>(thread, 1);
        f.add::<S32>(thread, 2);
        assert_eq!(count(&f, "add.s32"), 3, "{f}");
    }

    #[test]
    fn what_is_taken_back_is_forgotten() {
        let mut f = Func::new("k".into(), 32);
        let thread = f.special(Special::ThreadX);
        let mark = f.mark();
        f.add::<S32>(thread, 1);
        f.rewind(mark);
        f.add::<S32>(thread, 1);
        assert_eq!(count(&f, "add.s32"), 1, "{f}");
    }
}
