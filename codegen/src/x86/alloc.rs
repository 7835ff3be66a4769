//! Register allocation of a vector program: straight-line, so the value whose next use is furthest makes room.
//!
//! Constants and operands are loaded where they are first needed and, being reloadable, are dropped rather than spilled. What
//! comes out are instructions on physical registers; spill slots count in vectors.

use super::asm::{Asm, Bin, FmaForm, Mask, Mem, Pred, Src, Un, VReg};
use super::vprog::{Node, VProg, Val};
use super::{Isa, LeafError};

#[derive(Clone, Copy, Debug)]
enum Second {
    Reg(VReg),
    Const(u32),
}

#[derive(Clone, Copy, Debug)]
enum Inst {
    Bin(Bin, VReg, VReg, Second),
    Un(Un, VReg, VReg),
    Fma(FmaForm, VReg, VReg, Second),
    Select(Pred, VReg, VReg, Second, VReg, VReg),
    Const(VReg, u32),
    Operand(VReg, u8),
    Copy(VReg, VReg),
    Spill(usize, VReg),
    Reload(VReg, usize),
}

/// A program on physical registers.
#[derive(Debug)]
pub(super) struct Allocated {
    code: Vec<Inst>,
    /// Vectors of stack it needs.
    pub slots: usize,
    pub result: VReg,
}

/// Where operands and spill slots lie when the program is emitted.
pub(super) struct Place<'a> {
    /// The address of an operand, and whether it is one element for all lanes.
    pub operand: &'a dyn Fn(u8) -> (Mem, bool),
    pub slot: &'a dyn Fn(usize) -> Mem,
    /// Loads of operands touch only these lanes.
    pub mask: Option<Mask>,
}

impl Allocated {
    pub fn emit(&self, asm: &mut Asm, place: &Place) {
        self.code.iter().for_each(|inst| inst.emit(asm, place));
    }

    /// The same program on other registers and places, instruction by instruction in turn, so that none waits for itself.
    pub fn emit_in_turn(copies: &[(&Allocated, Place)], asm: &mut Asm) {
        let longest = copies.iter().map(|(a, _)| a.code.len()).max().unwrap_or(0);
        for i in 0..longest {
            let nth = copies.iter().filter_map(|(a, place)| a.code.get(i).map(|inst| (inst, place)));
            nth.for_each(|(inst, place)| inst.emit(asm, place));
        }
    }

    pub fn len(&self) -> usize {
        self.code.len()
    }
}

impl Inst {
    fn emit(&self, asm: &mut Asm, place: &Place) {
        let src = |s: Second| match s {
            Second::Reg(r) => Src::Reg(r),
            Second::Const(c) => Src::Const(c),
        };
        match *self {
            Inst::Bin(op, d, a, b) => asm.bin(op, d, a, src(b)),
            Inst::Un(op, d, a) => asm.un(op, d, a),
            Inst::Fma(form, d, a, b) => asm.fma(form, d, a, src(b)),
            Inst::Select(pred, d, a, b, yes, no) => asm.select(pred, d, a, src(b), yes, no),
            Inst::Const(d, bits) => asm.constant_to(d, bits),
            Inst::Operand(d, k) => match (place.operand)(k) {
                (m, true) => asm.broadcast(d, m),
                (m, false) => asm.load(d, m, place.mask),
            },
            Inst::Copy(d, a) => asm.copy(d, a),
            Inst::Spill(slot, r) => asm.store((place.slot)(slot), r, None),
            Inst::Reload(r, slot) => asm.load(r, (place.slot)(slot), None),
        }
    }
}

/// Allocates a legal program whose input is in `input`; `temps` are free, and so is `input` after its last use.
pub(super) fn allocate(p: &VProg, isa: Isa, input: VReg, temps: &[VReg]) -> Result<Allocated, LeafError> {
    let n = p.nodes.len();
    let mut uses = vec![Vec::new(); n];
    for (i, node) in p.nodes.iter().enumerate() {
        for u in node.uses() {
            uses[usize::from(u.0)].push(i);
        }
    }
    // The result is used by the store behind the last node.
    uses[usize::from(p.result.0)].push(n);
    let mut a = Alloc {
        p,
        isa,
        uses,
        reg: vec![None; n],
        slot: vec![None; n],
        free: temps.iter().rev().copied().collect(),
        code: Vec::new(),
        slots: 0,
    };
    a.reg[0] = Some(input);
    if a.uses[0].is_empty() {
        a.release(Val(0));
    }
    for i in 0..n {
        a.node(i)?;
    }
    let result = a.need(p.result, n, &[])?;
    Ok(Allocated { code: a.code, slots: a.slots, result })
}

struct Alloc<'a> {
    p: &'a VProg,
    isa: Isa,
    /// Positions of the nodes that use a value, ascending.
    uses: Vec<Vec<usize>>,
    reg: Vec<Option<VReg>>,
    slot: Vec<Option<usize>>,
    free: Vec<VReg>,
    code: Vec<Inst>,
    slots: usize,
}

impl Alloc<'_> {
    fn next_use(&self, v: Val, from: usize) -> Option<usize> {
        self.uses[usize::from(v.0)].iter().copied().find(|u| *u >= from)
    }

    fn dies(&self, v: Val, at: usize) -> bool {
        self.next_use(v, at + 1).is_none()
    }

    fn release(&mut self, v: Val) {
        if let Some(r) = self.reg[usize::from(v.0)].take() {
            self.free.push(r);
        }
    }

    /// A free register, made free if need be; values in `keep` stay where they are.
    fn fresh(&mut self, at: usize, keep: &[Val]) -> Result<VReg, LeafError> {
        if let Some(r) = self.free.pop() {
            return Ok(r);
        }
        let victim = (0..self.reg.len())
            .map(|v| Val(v as u16))
            .filter(|v| self.reg[usize::from(v.0)].is_some() && !keep.contains(v))
            .max_by_key(|v| self.next_use(*v, at).unwrap_or(usize::MAX))
            .ok_or(LeafError::TooFewRegisters)?;
        let v = usize::from(victim.0);
        let reloadable = matches!(self.p.nodes[v], Node::Const(_) | Node::Load(_));
        if let (Some(r), false, None) = (self.reg[v], reloadable, self.slot[v]) {
            self.slot[v] = Some(self.slots);
            self.code.push(Inst::Spill(self.slots, r));
            self.slots += 1;
        }
        self.release(victim);
        self.free.pop().ok_or(LeafError::TooFewRegisters)
    }

    /// The register that holds `v`, loading it if it is not in one.
    fn need(&mut self, v: Val, at: usize, keep: &[Val]) -> Result<VReg, LeafError> {
        let i = usize::from(v.0);
        if let Some(r) = self.reg[i] {
            return Ok(r);
        }
        let r = self.fresh(at, keep)?;
        self.code.push(match (self.p.nodes[i], self.slot[i]) {
            (Node::Const(bits), _) => Inst::Const(r, bits),
            (Node::Load(k), _) => Inst::Operand(r, k),
            (_, Some(slot)) => Inst::Reload(r, slot),
            (node, None) => unreachable!("{node:?} is used before it is computed"),
        });
        self.reg[i] = Some(r);
        Ok(r)
    }

    /// A constant that is in no register is a memory operand.
    fn second(&mut self, v: Val, at: usize, keep: &[Val]) -> Result<Second, LeafError> {
        let i = usize::from(v.0);
        match (self.p.nodes[i], self.reg[i]) {
            (Node::Const(bits), None) => Ok(Second::Const(bits)),
            _ => self.need(v, at, keep).map(Second::Reg),
        }
    }

    fn release_dead(&mut self, values: &[Val], at: usize) {
        for v in values {
            if self.dies(*v, at) {
                self.release(*v);
            }
        }
    }

    fn node(&mut self, i: usize) -> Result<(), LeafError> {
        let node = self.p.nodes[i];
        let keep = node.uses();
        let d = match node {
            Node::Input | Node::Load(_) | Node::Const(_) => return Ok(()),
            Node::Bin(op, a, b) => {
                let (ra, sb) = (self.need(a, i, &keep)?, self.second(b, i, &keep)?);
                self.release_dead(&keep, i);
                let d = self.fresh(i, &keep)?;
                self.code.push(Inst::Bin(op, d, ra, sb));
                d
            }
            Node::Un(op, a) => {
                let ra = self.need(a, i, &keep)?;
                // These write the destination while the operand is still to be read.
                let early = matches!(op, Un::HugeSine | Un::HugeCosine);
                if !early {
                    self.release_dead(&keep, i);
                }
                let d = self.fresh(i, &keep)?;
                self.code.push(Inst::Un(op, d, ra));
                if early {
                    self.release_dead(&keep, i);
                }
                d
            }
            Node::Fma(a, b, c) => self.fma(i, a, b, c)?,
            Node::Select { pred, a, b, yes, no } => {
                let ra = self.need(a, i, &keep)?;
                let sb = self.second(b, i, &keep)?;
                let (ry, rn) = (self.need(yes, i, &keep)?, self.need(no, i, &keep)?);
                match self.isa {
                    Isa::Avx512 => self.release_dead(&keep, i),
                    // The comparison's result goes to the destination while `yes` and `no` are still to be read.
                    Isa::Avx2 => {
                        for v in [a, b] {
                            if v != yes && v != no {
                                self.release_dead(&[v], i);
                            }
                        }
                    }
                }
                let d = self.fresh(i, &keep)?;
                self.code.push(Inst::Select(pred, d, ra, sb, ry, rn));
                self.release_dead(&keep, i);
                d
            }
        };
        if self.uses[i].is_empty() {
            self.free.push(d);
        } else {
            self.reg[i] = Some(d);
        }
        Ok(())
    }

    /// The destination is one of the operands: the addend or a factor that dies here, or a copy.
    fn fma(&mut self, i: usize, a: Val, b: Val, c: Val) -> Result<VReg, LeafError> {
        let keep = [a, b, c];
        let ra = self.need(a, i, &keep)?;
        let sb = self.second(b, i, &keep)?;
        let sc = self.second(c, i, &keep)?;
        let (form, tied, x, y) = match (sb, sc) {
            (_, Second::Reg(_)) if self.dies(c, i) => (FmaForm::F231, c, a, sb),
            (Second::Reg(_), _) if self.dies(a, i) => (FmaForm::F213, a, b, sc),
            (Second::Reg(_), _) if self.dies(b, i) => (FmaForm::F213, b, a, sc),
            (Second::Const(_), Second::Reg(_)) if self.dies(a, i) => (FmaForm::F132, a, c, sb),
            (_, Second::Reg(_)) => (FmaForm::F231, c, a, sb),
            (Second::Reg(_), Second::Const(_)) => (FmaForm::F213, a, b, sc),
            (Second::Const(_), Second::Const(_)) => {
                self.need(b, i, &keep)?;
                return self.fma(i, a, b, c);
            }
        };
        let (Some(rx), Some(rt)) = (self.reg[usize::from(x.0)], self.reg[usize::from(tied.0)]) else {
            unreachable!("{ra}: both were loaded above");
        };
        let d = if self.dies(tied, i) {
            self.reg[usize::from(tied.0)] = None;
            rt
        } else {
            let d = self.fresh(i, &keep)?;
            self.code.push(Inst::Copy(d, rt));
            d
        };
        self.code.push(Inst::Fma(form, d, rx, y));
        self.release_dead(&keep, i);
        Ok(d)
    }
}
