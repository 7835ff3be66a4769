//! Kernels as text, for `--emit kernels`.

use super::{Access, BinOp, CmpOp, Expr, Factor, Kernel, LeafArg, LoopKind, Merged, Stmt, Tile, UnOp};
use lehr_ir::DType;
use std::fmt;

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for o in &self.origins {
            match o.index {
                Some(index) => writeln!(f, "; node {index} '{}' ({})", o.name, o.op)?,
                None => writeln!(f, "; node '{}' ({})", o.name, o.op)?,
            }
        }
        write!(f, "kernel {} (", self.name)?;
        for (k, p) in self.params.iter().enumerate() {
            let access = match p.access {
                Access::Read => "read",
                Access::Write => "write",
                Access::ReadWrite => "read write",
            };
            write!(f, "{}b{k}: {}[{}] {access}", if k == 0 { "" } else { ", " }, p.dtype, p.len)?;
        }
        write!(f, ") parallel v0 < {}", self.extent)?;
        if let Some(var) = self.range_start {
            write!(f, " from v{var}")?;
        }
        if let Some(Merged { of, run }) = self.merged {
            write!(f, " merging v{run} up to {of}")?;
        }
        writeln!(f, " {{")?;
        self.block(f, &self.body, 1)?;
        writeln!(f, "}}")
    }
}

impl Kernel {
    fn block(&self, f: &mut fmt::Formatter<'_>, body: &[Stmt], depth: usize) -> fmt::Result {
        body.iter().try_for_each(|s| self.statement(f, s, depth))
    }

    fn statement(&self, f: &mut fmt::Formatter<'_>, s: &Stmt, depth: usize) -> fmt::Result {
        let pad = "  ".repeat(depth);
        match s {
            Stmt::Let { var, value } => {
                writeln!(f, "{pad}let v{var}: {} = {}", self.vars[*var as usize], Top(value))
            }
            Stmt::Set { var, value } => writeln!(f, "{pad}v{var} = {}", Top(value)),
            Stmt::Store { buf, index, value } => writeln!(f, "{pad}b{buf}[{}] = {}", Top(index), Top(value)),
            Stmt::For { var, start, end, step, kind, body } => {
                let kind = match kind {
                    LoopKind::Serial => "",
                    LoopKind::Vector => "vector ",
                };
                let step = if *step == 1 { String::new() } else { format!(" step {step}") };
                writeln!(f, "{pad}{kind}for v{var} in {} .. {}{step} {{", Top(start), Top(end))?;
                self.block(f, body, depth + 1)?;
                writeln!(f, "{pad}}}")
            }
            Stmt::If { cond, then, otherwise } => {
                writeln!(f, "{pad}if {} {{", Top(cond))?;
                self.block(f, then, depth + 1)?;
                if !otherwise.is_empty() {
                    writeln!(f, "{pad}}} else {{")?;
                    self.block(f, otherwise, depth + 1)?;
                }
                writeln!(f, "{pad}}}")
            }
            Stmt::While { cond, body } => {
                writeln!(f, "{pad}while {} {{", Top(cond))?;
                self.block(f, body, depth + 1)?;
                writeln!(f, "{pad}}}")
            }
            Stmt::Fault(id) => {
                writeln!(f, "{pad}fault {:?}", self.faults.get(*id as usize).map_or("?", |text| text.as_str()))
            }
            Stmt::Contract(c) => {
                let Tile { rows, columns, depth: steps, .. } = c.tile;
                writeln!(
                    f,
                    "{pad}contract v{} < {}, v{} < {} in tiles of {rows}x{columns}x{steps} {{",
                    c.row, c.rows, c.column, c.columns
                )?;
                write!(
                    f,
                    "{pad}  let v{}: f32 = sum over v{} in {} .. {} of ",
                    c.sum,
                    c.step,
                    Top(&c.first),
                    Top(&c.end)
                )?;
                writeln!(f, "{} * {}", FactorText(&c.left), FactorText(&c.right))?;
                self.block(f, &c.body, depth + 1)?;
                writeln!(f, "{pad}}}")
            }
            Stmt::Leaf { leaf, args } => {
                write!(f, "{pad}leaf {leaf} (")?;
                for (k, arg) in args.iter().enumerate() {
                    let comma = if k == 0 { "" } else { ", " };
                    match arg {
                        LeafArg::Address { buf, index } => write!(f, "{comma}&b{buf}[{}]", Top(index))?,
                        LeafArg::Int(e) => write!(f, "{comma}{}", Top(e))?,
                    }
                }
                writeln!(f, ")")
            }
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Int(DType::I64, n) => write!(f, "{n}"),
            Expr::Int(DType::Bool, n) => write!(f, "{}", *n != 0),
            Expr::Int(t, n) => write!(f, "{n}{t}"),
            Expr::Float(DType::F32, bits) => write!(f, "{:?}", f64::from_bits(*bits) as f32),
            Expr::Float(_, bits) => write!(f, "{:?}f64", f64::from_bits(*bits)),
            Expr::Var(v) => write!(f, "v{v}"),
            Expr::Load { buf, index } => write!(f, "b{buf}[{}]", Top(index)),
            Expr::Unary(op, a) => write!(f, "{}({})", unary_name(*op), Top(a)),
            Expr::Binary(op, a, b) => match spelling(*op) {
                Spelling::Sign(sign) => write!(f, "({a} {sign} {b})"),
                Spelling::Call(name) => write!(f, "{name}({}, {})", Top(a), Top(b)),
            },
            Expr::Compare(op, a, b) => write!(f, "({a} {} {b})", compare_sign(*op)),
            Expr::Select(c, a, b) => write!(f, "select({}, {}, {})", Top(c), Top(a), Top(b)),
            Expr::Cast(t, a) => write!(f, "{t}({})", Top(a)),
        }
    }
}

/// An expression where nothing is around it: without the outer parentheses.
struct Top<'e>(&'e Expr);

impl fmt::Display for Top<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Expr::Binary(op, a, b) => match spelling(*op) {
                Spelling::Sign(sign) => write!(f, "{a} {sign} {b}"),
                Spelling::Call(_) => write!(f, "{}", self.0),
            },
            Expr::Compare(op, a, b) => write!(f, "{a} {} {b}", compare_sign(*op)),
            e => write!(f, "{e}"),
        }
    }
}

/// `b0[outer + inner] if 0 <= .. < n`
struct FactorText<'f>(&'f Factor);

impl fmt::Display for FactorText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}[{}]", self.0.buf, Top(&self.0.at.sum()))?;
        for (i, b) in self.0.bounds.iter().enumerate() {
            write!(f, " {} 0 <= {} < {}", if i == 0 { "if" } else { "and" }, Top(&b.at.sum()), b.size)?;
        }
        Ok(())
    }
}

/// How a binary operation is written: between its operands, or as a call.
enum Spelling {
    Sign(&'static str),
    Call(&'static str),
}

fn spelling(op: BinOp) -> Spelling {
    match op {
        BinOp::Add => Spelling::Sign("+"),
        BinOp::Sub => Spelling::Sign("-"),
        BinOp::Mul => Spelling::Sign("*"),
        BinOp::Div => Spelling::Sign("/"),
        BinOp::Rem => Spelling::Sign("%"),
        BinOp::And => Spelling::Sign("&"),
        BinOp::Or => Spelling::Sign("|"),
        BinOp::Xor => Spelling::Sign("^"),
        BinOp::Shl => Spelling::Sign("<<"),
        BinOp::Shr => Spelling::Sign(">>"),
        BinOp::Min => Spelling::Call("min"),
        BinOp::Max => Spelling::Call("max"),
        BinOp::Pow => Spelling::Call("pow"),
    }
}

fn compare_sign(op: CmpOp) -> &'static str {
    match op {
        CmpOp::Eq => "==",
        CmpOp::Ne => "!=",
        CmpOp::Lt => "<",
        CmpOp::Le => "<=",
        CmpOp::Gt => ">",
        CmpOp::Ge => ">=",
    }
}

fn unary_name(op: UnOp) -> String {
    format!("{op:?}").to_lowercase()
}
