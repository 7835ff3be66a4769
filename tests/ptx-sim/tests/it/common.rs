//! Kernels around a few instructions, and what tests ask of them.

use lehr_ptx_sim::{Arg, Device, Fault, FaultKind, Grid, Module, Options, Stats};

pub const HEADER: &str = ".version 8.0\n.target sm_90\n.address_size 64\n";

/// Parses a module; with PTX_SIM_DUMP=DIR its text is also written there, for ptxas to read.
pub fn module(text: &str) -> Module {
    dump(text);
    match Module::parse(text) {
        Ok(module) => module,
        Err(error) => panic!("{error}\n{text}"),
    }
}

fn dump(text: &str) {
    let Ok(directory) = std::env::var("PTX_SIM_DUMP") else { return };
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    std::fs::write(format!("{directory}/{hash:016x}.ptx"), text).expect("the dump can be written");
}

/// Bytes of the elements, `size` of each.
pub fn to_bytes(values: &[u64], size: usize) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()[..size].to_vec()).collect()
}

pub fn from_bytes(bytes: &[u8], size: usize) -> Vec<u64> {
    bytes.chunks_exact(size).map(|c| c.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b))).collect()
}

/// Runs `body` in one thread for each row of inputs. `%a`, `%b`, `%c`, `%e` hold the row's values, of the widths (in
/// bytes) given; the body leaves its result in `%d`, of `out` bytes. Predicates `%p`, `%q` may be used.
pub fn map(widths: &[usize], out: usize, body: &str, rows: &[Vec<u64>]) -> Vec<u64> {
    let names = ["a", "b", "c", "e"];
    let mut text = format!("{HEADER}.visible .entry k(");
    for i in 0..widths.len() {
        text += &format!(".param .u64 in{i}, ");
    }
    text += ".param .u64 out) {\n.reg .b32 %id, %n, %r<4>;\n.reg .b64 %x, %y, %rd<4>;\n.reg .pred %p, %q;\n";
    for (name, width) in names.iter().zip(widths).chain([(&"d", &out)]) {
        text += &format!(".reg .b{} %{name};\n", 8 * width.max(&2));
    }
    text += "mov.u32 %id, %tid.x;\n";
    for (i, (name, width)) in names.iter().zip(widths).enumerate() {
        text += &format!("ld.param.u64 %x, [in{i}];\nmad.wide.u32 %y, %id, {width}, %x;\n");
        text += &format!("ld.global.b{} %{name}, [%y];\n", 8 * width);
    }
    text += body;
    text += &format!("\nld.param.u64 %x, [out];\nmad.wide.u32 %y, %id, {out}, %x;\nst.global.b{} [%y], %d;\n", 8 * out);
    text += "ret;\n}\n";
    let module = module(&text);
    let mut device = Device::new();
    let mut args = Vec::new();
    for (i, width) in widths.iter().enumerate() {
        let column: Vec<u64> = rows.iter().map(|row| row[i]).collect();
        let address = device.alloc((rows.len() * width) as u64).expect("memory");
        device.upload(address, &to_bytes(&column, *width)).expect("upload");
        args.push(Arg::U64(address));
    }
    let result = device.alloc((rows.len() * out) as u64).expect("memory");
    args.push(Arg::U64(result));
    if let Err(fault) = device.launch(&module, "k", Grid::linear(1, rows.len() as u32), &args) {
        panic!("{fault}\n{text}");
    }
    from_bytes(&device.download(result, (rows.len() * out) as u64).expect("download"), out)
}

/// Runs a kernel named `k` with words in and words out: `in` is its first parameter, `out` its second.
pub fn run_words(text: &str, grid: Grid, input: &[u32], out: usize) -> (Vec<u32>, Stats) {
    match try_words(text, grid, input, out, Options::default()) {
        Ok(result) => result,
        Err(fault) => panic!("{fault}\n{text}"),
    }
}

pub fn try_words(
    text: &str,
    grid: Grid,
    input: &[u32],
    out: usize,
    options: Options,
) -> Result<(Vec<u32>, Stats), Fault> {
    let module = module(text);
    let mut device = Device::with_options(options);
    let source = device.alloc_named("in", 4 * input.len() as u64)?;
    device.upload(source, bytemuck_words(input).as_slice())?;
    let target = device.alloc_named("out", 4 * out as u64)?;
    let stats = device.launch(&module, "k", grid, &[Arg::U64(source), Arg::U64(target)])?;
    let bytes = device.download_or(target, 4 * out as u64, 0xee)?;
    Ok((from_bytes(&bytes, 4).into_iter().map(|v| v as u32).collect(), stats))
}

fn bytemuck_words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// A kernel `k(in, out)` around `body`, where `%in` and `%out` hold the global addresses and `%id` the thread.
pub fn kernel(declarations: &str, body: &str) -> String {
    format!(
        "{HEADER}.visible .entry k(.param .u64 in, .param .u64 out) {{\n\
         .reg .b32 %id, %r<16>;\n.reg .f32 %f<16>;\n.reg .b64 %in, %out, %rd<8>;\n.reg .pred %p<4>;\n\
         {declarations}\n\
         ld.param.u64 %in, [in];\nld.param.u64 %out, [out];\nmov.u32 %id, %tid.x;\n\
         {body}\nret;\n}}\n"
    )
}

/// The fault that a kernel of [`kernel`] ends with; panics if it has none.
pub fn fault_of(declarations: &str, body: &str, threads: u32) -> Fault {
    let input: Vec<u32> = (0..64).collect();
    let text = kernel(declarations, body);
    match try_words(&text, Grid::linear(1, threads), &input, 64, Options::default()) {
        Ok(_) => panic!("no fault\n{text}"),
        Err(fault) => fault,
    }
}

/// Asserts the kind of fault, and that it names a line that holds `instruction`.
pub fn assert_fault(fault: &Fault, kind: FaultKind, instruction: &str) {
    let text = fault.to_string();
    assert_eq!(fault.kind, kind, "{text}");
    let place = fault.place.as_ref().expect("a place");
    assert!(place.instruction.contains(instruction), "{text}");
}
