//! A lowered program run by the kernel interpreter, which checks every index and every type: what machine code would do
//! silently (a store outside of its buffer, say) is an error here.

use lehr_codegen::kernel::interp;
use lehr_codegen::program::{BufferId, Place, Program};
use lehr_ir::Tensor;

/// Runs every step in order on buffers of their own, also after a fault of the data, as threads of a compiled model
/// may. Gives the text of the last fault; a violation is an error. Programs with machine-code leaves cannot be interpreted.
pub fn interpret(program: &Program, inputs: &[Tensor]) -> Result<Option<String>, String> {
    let mut memory: Vec<Vec<u8>> = program
        .buffers
        .iter()
        .map(|b| match b.place {
            Some(Place::Input(i)) => inputs[i].bytes().to_vec(),
            Some(Place::Weights(offset)) => {
                // Empty weights lie where the next ones begin.
                let same = program.weights.iter().find(|w| w.offset == offset && w.data.len() as u64 == b.bytes());
                same.map_or(vec![], |w| w.data.to_vec())
            }
            // Not zero, so that an index that nobody wrote is far out of range.
            Some(Place::Arena(_) | Place::Output(_)) | None => vec![0x5a; b.bytes() as usize],
        })
        .collect();
    let mut last = None;
    for step in &program.steps {
        let kernel = &program.kernels[step.kernel];
        let at = |b: &BufferId| b.0 as usize;
        let mut args: Vec<Vec<u8>> = step.args.iter().map(|b| std::mem::take(&mut memory[at(b)])).collect();
        let fault = interp::run(kernel, &mut args, 0..kernel.extent).map_err(|e| format!("{e}\n{kernel}"))?;
        if let Some(id) = fault {
            last = Some(program.faults[(step.first_fault + id) as usize].clone());
        }
        for (b, bytes) in step.args.iter().zip(args) {
            memory[at(b)] = bytes;
        }
    }
    Ok(last)
}
