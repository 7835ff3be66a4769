//! Symbolic dimensions: a constant, or a polynomial over atoms (symbols, floor divisions, minima, maxima)
//! kept in one canonical form, so that equal expressions built in different ways compare equal.
//!
//! Arithmetic saturates at the ends of `i64`; the inference driver rejects tensors of absurd size, so a
//! saturated number never reaches a loop bound.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::{Add, Mul, Sub};
use std::sync::Arc;

/// A size: never negative in a shape, of any sign inside an expression.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    Const(i64),
    Expr(Arc<Poly>),
}

/// A sum of products of atoms with integer coefficients; the empty product is the constant term.
/// Invariant: no zero coefficients, and not a lone constant (that is `Dim::Const`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Poly {
    terms: BTreeMap<Vec<Atom>, i64>,
}

/// What a product is made of: a symbol, or a function that does not expand.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Atom {
    Symbol(Arc<str>),
    FloorDiv(Box<Dim>, Box<Dim>),
    Max(Box<Dim>, Box<Dim>),
    Min(Box<Dim>, Box<Dim>),
    /// A product left unexpanded because expanding it would make too many terms.
    Product(Box<Dim>, Box<Dim>),
}

/// Products that would have more terms than this stay unexpanded.
const MAX_TERMS: usize = 64;

impl Dim {
    pub const ZERO: Dim = Dim::Const(0);
    pub const ONE: Dim = Dim::Const(1);

    /// A dimension known by name only.
    pub fn symbol(name: &str) -> Dim {
        Dim::atom(Atom::Symbol(name.into()))
    }

    fn atom(atom: Atom) -> Dim {
        Dim::Expr(Arc::new(Poly { terms: BTreeMap::from([(vec![atom], 1)]) }))
    }

    /// The number, if this is one.
    pub fn as_const(&self) -> Option<i64> {
        match self {
            Dim::Const(n) => Some(*n),
            Dim::Expr(_) => None,
        }
    }

    /// How large the expression is: its atoms, those inside of atoms included. Importers refuse dimensions past
    /// a bound, because a hostile model can square an expression at every node.
    pub fn weight(&self) -> usize {
        let Dim::Expr(poly) = self else { return 1 };
        let atoms = poly.terms.keys().flatten().map(|atom| match atom {
            Atom::Symbol(_) => 1,
            Atom::FloorDiv(a, b) | Atom::Max(a, b) | Atom::Min(a, b) | Atom::Product(a, b) => a.weight() + b.weight(),
        });
        atoms.fold(poly.terms.len(), usize::saturating_add)
    }

    /// The name, if this is a lone symbol.
    pub fn as_symbol(&self) -> Option<&str> {
        let Dim::Expr(poly) = self else { return None };
        match poly.terms.iter().next() {
            Some((atoms, 1)) if poly.terms.len() == 1 => match &atoms[..] {
                [Atom::Symbol(name)] => Some(name),
                _ => None,
            },
            _ => None,
        }
    }

    pub fn is(&self, n: i64) -> bool {
        self.as_const() == Some(n)
    }

    fn terms(&self) -> BTreeMap<Vec<Atom>, i64> {
        match self {
            Dim::Const(0) => BTreeMap::new(),
            Dim::Const(n) => BTreeMap::from([(vec![], *n)]),
            Dim::Expr(p) => p.terms.clone(),
        }
    }

    fn from_terms(mut terms: BTreeMap<Vec<Atom>, i64>) -> Dim {
        terms.retain(|_, c| *c != 0);
        match terms.len() {
            0 => Dim::ZERO,
            1 if terms.contains_key(&vec![]) => Dim::Const(terms[&vec![]]),
            _ => Dim::Expr(Arc::new(Poly { terms })),
        }
    }

    fn combine(&self, other: &Dim, sign: i64) -> Dim {
        if let (Dim::Const(a), Dim::Const(b)) = (self, other) {
            return Dim::Const(a.saturating_add(b.saturating_mul(sign)));
        }
        let mut terms = self.terms();
        for (atoms, c) in other.terms() {
            let slot = terms.entry(atoms).or_insert(0);
            *slot = slot.saturating_add(c.saturating_mul(sign));
        }
        Dim::from_terms(terms)
    }

    fn product(&self, other: &Dim) -> Dim {
        match (self, other) {
            (Dim::Const(a), Dim::Const(b)) => return Dim::Const(a.saturating_mul(*b)),
            (Dim::Const(0), _) | (_, Dim::Const(0)) => return Dim::ZERO,
            (Dim::Const(1), d) | (d, Dim::Const(1)) => return d.clone(),
            _ => {}
        }
        let (a, b) = (self.terms(), other.terms());
        if a.len() * b.len() > MAX_TERMS {
            let (x, y) = if self <= other { (self, other) } else { (other, self) };
            return Dim::atom(Atom::Product(Box::new(x.clone()), Box::new(y.clone())));
        }
        let mut terms = BTreeMap::new();
        for (x, c) in &a {
            for (y, d) in &b {
                let mut atoms: Vec<Atom> = x.iter().chain(y).cloned().collect();
                atoms.sort();
                let slot: &mut i64 = terms.entry(atoms).or_insert(0);
                *slot = slot.saturating_add(c.saturating_mul(*d));
            }
        }
        Dim::from_terms(terms)
    }

    /// Rounds towards minus infinity. Division by zero gives zero, as a 0-sized tensor would.
    pub fn floor_div(&self, by: &Dim) -> Dim {
        match (self, by) {
            (_, Dim::Const(0)) => Dim::ZERO,
            (Dim::Const(a), Dim::Const(b)) => Dim::Const(a.checked_div_euclid(*b).map_or(i64::MAX, |q| {
                // div_euclid rounds up for negative divisors; floor does not.
                if *b < 0 && a.rem_euclid(*b) != 0 { q - 1 } else { q }
            })),
            (_, Dim::Const(1)) => self.clone(),
            _ => self
                .divide_exactly(by)
                .unwrap_or_else(|| Dim::atom(Atom::FloorDiv(Box::new(self.clone()), Box::new(by.clone())))),
        }
    }

    pub fn ceil_div(&self, by: &Dim) -> Dim {
        (&(self + by) - &Dim::ONE).floor_div(by)
    }

    /// The quotient when every term is a multiple of a single-term divisor.
    pub fn divide_exactly(&self, by: &Dim) -> Option<Dim> {
        let divisor = by.terms();
        if divisor.len() != 1 {
            return (self == by).then_some(Dim::ONE);
        }
        let (atoms, c) = divisor.into_iter().next()?;
        let mut terms = BTreeMap::new();
        for (mut x, d) in self.terms() {
            if d.checked_rem(c)? != 0 {
                return None;
            }
            for atom in &atoms {
                let at = x.iter().position(|a| a == atom)?;
                x.remove(at);
            }
            terms.insert(x, d / c);
        }
        Some(Dim::from_terms(terms))
    }

    pub fn maximum(&self, other: &Dim) -> Dim {
        self.extreme(other, i64::max, Atom::Max)
    }

    pub fn minimum(&self, other: &Dim) -> Dim {
        self.extreme(other, i64::min, Atom::Min)
    }

    fn extreme(&self, other: &Dim, f: fn(i64, i64) -> i64, atom: fn(Box<Dim>, Box<Dim>) -> Atom) -> Dim {
        match (self, other) {
            (Dim::Const(a), Dim::Const(b)) => Dim::Const(f(*a, *b)),
            (a, b) if a == b => a.clone(),
            (a, b) => {
                let (a, b) = if a <= b { (a, b) } else { (b, a) };
                Dim::atom(atom(Box::new(a.clone()), Box::new(b.clone())))
            }
        }
    }

    /// Replaces symbols by what `lookup` gives for them.
    pub fn substitute(&self, lookup: &dyn Fn(&str) -> Option<Dim>) -> Dim {
        let Dim::Expr(poly) = self else { return self.clone() };
        let mut sum = Dim::ZERO;
        for (atoms, c) in &poly.terms {
            let mut term = Dim::Const(*c);
            for atom in atoms {
                term = &term * &atom.substitute(lookup);
            }
            sum = &sum + &term;
        }
        sum
    }

    /// Adds every symbol that occurs to `into`.
    pub fn symbols(&self, into: &mut BTreeSet<Arc<str>>) {
        let Dim::Expr(poly) = self else { return };
        for atom in poly.terms.keys().flatten() {
            match atom {
                Atom::Symbol(s) => {
                    into.insert(s.clone());
                }
                Atom::FloorDiv(a, b) | Atom::Max(a, b) | Atom::Min(a, b) | Atom::Product(a, b) => {
                    a.symbols(into);
                    b.symbols(into);
                }
            }
        }
    }
}

impl Atom {
    fn substitute(&self, lookup: &dyn Fn(&str) -> Option<Dim>) -> Dim {
        match self {
            Atom::Symbol(s) => lookup(s).unwrap_or_else(|| Dim::atom(self.clone())),
            Atom::FloorDiv(a, b) => a.substitute(lookup).floor_div(&b.substitute(lookup)),
            Atom::Max(a, b) => a.substitute(lookup).maximum(&b.substitute(lookup)),
            Atom::Min(a, b) => a.substitute(lookup).minimum(&b.substitute(lookup)),
            Atom::Product(a, b) => &a.substitute(lookup) * &b.substitute(lookup),
        }
    }
}

macro_rules! arithmetic {
    ($($trait:ident $method:ident |$a:ident, $b:ident| $body:expr;)*) => {$(
        impl $trait<&Dim> for &Dim {
            type Output = Dim;
            fn $method(self, other: &Dim) -> Dim {
                let ($a, $b) = (self, other);
                $body
            }
        }
        impl $trait<i64> for &Dim {
            type Output = Dim;
            fn $method(self, other: i64) -> Dim {
                self.$method(&Dim::Const(other))
            }
        }
    )*};
}

arithmetic! {
    Add add |a, b| a.combine(b, 1);
    Sub sub |a, b| a.combine(b, -1);
    Mul mul |a, b| a.product(b);
}

impl From<i64> for Dim {
    fn from(n: i64) -> Dim {
        Dim::Const(n)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Dim::Expr(poly) = self else {
            return write!(f, "{}", self.as_const().unwrap_or(0));
        };
        // Constant term last: `2*h + 1`.
        let ordered = poly.terms.iter().filter(|(a, _)| !a.is_empty());
        let constant = poly.terms.iter().filter(|(a, _)| a.is_empty());
        for (i, (atoms, &c)) in ordered.chain(constant).enumerate() {
            let magnitude = c.unsigned_abs();
            match (i, c < 0) {
                (0, true) => write!(f, "-")?,
                (0, false) => {}
                (_, true) => write!(f, " - ")?,
                (_, false) => write!(f, " + ")?,
            }
            if atoms.is_empty() {
                write!(f, "{magnitude}")?;
                continue;
            }
            if magnitude != 1 {
                write!(f, "{magnitude}*")?;
            }
            for (j, atom) in atoms.iter().enumerate() {
                write!(f, "{}{atom}", if j > 0 { "*" } else { "" })?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Symbol(s) if crate::text::is_plain_symbol(s) => write!(f, "{s}"),
            Atom::Symbol(s) => write!(f, "{s:?}"),
            Atom::FloorDiv(a, b) => write!(f, "floor(({a})/({b}))"),
            Atom::Max(a, b) => write!(f, "max({a}, {b})"),
            Atom::Min(a, b) => write!(f, "min({a}, {b})"),
            Atom::Product(a, b) => write!(f, "mul({a}, {b})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_expressions_are_equal() {
        let (h, w) = (Dim::symbol("h"), Dim::symbol("w"));
        assert_eq!(&(&h + 1) * &(&w - 1), &(&(&(&h * &w) - &h) + &w) - 1);
        assert_eq!((&(&h * 4) * &w).divide_exactly(&(&w * 2)), Some(&h * 2));
        assert_eq!(&h - &h, Dim::ZERO);
    }

    #[test]
    fn prints_and_substitutes() {
        let w = Dim::symbol("w");
        let out = &(&w - 1).floor_div(&Dim::Const(2)) + 1;
        assert_eq!(out.to_string(), "floor((w - 1)/(2)) + 1");
        assert_eq!(out.substitute(&|_| Some(Dim::Const(224))), Dim::Const(112));
        assert_eq!((&(&w * 2) + 1).to_string(), "2*w + 1");
    }

    #[test]
    fn floors_towards_minus_infinity() {
        for (a, b, q) in [(-1, 2, -1), (7, 2, 3), (-7, -2, 3), (7, -2, -4), (5, 0, 0)] {
            assert_eq!(Dim::Const(a).floor_div(&Dim::Const(b)), Dim::Const(q), "{a}/{b}");
        }
    }
}
