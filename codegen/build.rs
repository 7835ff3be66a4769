//! Compiles `runtime/` into the one object that is linked into every model.so, and refuses an object that needs anything but
//! a few functions of the C library (a reachable panic would show here as an undefined `core::panicking` symbol).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use object::{Object, ObjectSection, ObjectSymbol, SectionFlags};

/// What the runtime may import: of these, a model for the CPU uses none of the last four.
const ALLOWED: [&str; 12] = [
    "memcpy",
    "memmove",
    "memset",
    "memcmp",
    "syscall",
    "pthread_create",
    "pthread_join",
    "pthread_sigmask",
    "dlopen",
    "dlsym",
    "dlerror",
    "secure_getenv",
];

fn main() {
    println!("cargo::rerun-if-changed=runtime");
    println!("cargo::rustc-check-cfg=cfg(lehr_runtime_object)");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("lehr_runtime.o");
    compile(&out);
    let problems = check(&out);
    assert!(problems.is_empty(), "the runtime object must stand alone:\n{}", problems.join("\n"));
}

fn compile(out: &Path) {
    let rustc = env::var_os("RUSTC").expect("cargo sets RUSTC");
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let output = Command::new(rustc)
        .args(["--crate-name=lehr_runtime", "--crate-type=lib", "--edition=2024", "--emit=obj", "--target", &target])
        .args(["--cfg=lehr_runtime_object", "--check-cfg=cfg(lehr_runtime_object)"])
        .args(["-Copt-level=3", "-Cpanic=abort", "-Crelocation-model=pic", "-Cforce-unwind-tables=no"])
        .args(["-Ccodegen-units=1", "-Coverflow-checks=no", "-Cdebug-assertions=no", "-Cembed-bitcode=no"])
        .args(["-Cdebuginfo=0", "--cap-lints=warn"])
        .arg("-o")
        .arg(out)
        .arg("runtime/object.rs")
        .output()
        .expect("the compiler that builds this crate can be run");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the runtime does not compile:\n{text}");
}

/// Undefined symbols that are not allowed, and sections that would be mutable state.
fn check(path: &Path) -> Vec<String> {
    let bytes = fs::read(path).expect("the object was just written");
    let file = object::File::parse(&*bytes).expect("the compiler writes ELF");
    let mut problems = Vec::new();
    for symbol in file.symbols().filter(|symbol| symbol.is_undefined()) {
        let name = symbol.name().unwrap_or("?");
        if !name.is_empty() && !ALLOWED.contains(&name) {
            problems.push(format!("it refers to {name}"));
        }
    }
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags, .. } = section.flags() else {
            continue;
        };
        let (name, writable) = (section.name().unwrap_or("?"), sh_flags.0 & object::elf::SHF_WRITE.0 != 0);
        if writable && section.size() > 0 && !name.starts_with(".data.rel.ro") {
            problems.push(format!("it has mutable data in {name}"));
        }
    }
    problems
}
