//! Streams, events, captures and graphs.

use super::{functions, put};
use crate::machine::error;
use crate::queue::Work;
use crate::state::{Capture, Event, Instance, current_device, mode, this_thread};
use std::ffi::{c_int, c_uint};

const NON_BLOCKING: c_uint = 1;

functions! {
    Context cuStreamCreate(stream: *mut usize, flags: c_uint) |state| {
        let handle = state.create_stream(flags & NON_BLOCKING == 0)?;
        put(stream, handle)
    }

    Context cuStreamDestroy_v2(stream: usize) |state| {
        state.destroy_stream(stream)
    }

    NoCapture cuStreamSynchronize(stream: usize) |state| {
        state.finish_stream(stream)
    }

    Context cuStreamWaitEvent(stream: usize, event: usize, _flags: c_uint) |state| {
        let after = state.event(event)?.after;
        state.enqueue(stream, vec![Work::Place], after.as_slice()).map(|_| ())
    }

    Context cuStreamBeginCapture_v2(stream: usize, mode: c_int) |state| {
        if stream == 0 {
            return Err(error::CAPTURE_UNSUPPORTED);
        }
        let (_, stream) = state.stream(stream)?;
        if stream.capture.is_some() || !(mode::GLOBAL..=mode::RELAXED).contains(&mode) {
            return Err(error::INVALID_VALUE);
        }
        stream.capture = Some(Capture { work: Vec::new(), mode, thread: this_thread(), is_invalid: false });
        Ok(())
    }

    Context cuStreamEndCapture(stream: usize, graph: *mut usize) |state| {
        let (_, stream) = state.stream(stream)?;
        let capture = stream.capture.take().ok_or(error::INVALID_VALUE)?;
        if capture.thread != this_thread() && capture.mode != mode::RELAXED {
            return Err(error::CAPTURE_WRONG_THREAD);
        }
        if capture.is_invalid {
            put(graph, 0)?;
            return Err(error::CAPTURE_INVALIDATED);
        }
        let handle = state.handle();
        state.graphs.insert(handle, capture.work);
        put(graph, handle)
    }

    /// 0: no; 1: yes; 2: yes, and the capture has failed. Of the default stream it says what work in it would fail with.
    Context cuStreamIsCapturing(stream: usize, status: *mut c_uint) |state| {
        if state.capture_in_turn(stream)?.is_some() {
            return Err(error::CAPTURE_IMPLICIT);
        }
        let (_, stream) = state.stream(stream)?;
        put(status, stream.capture.as_ref().map_or(0, |capture| 1 + capture.is_invalid as c_uint))
    }

    Context cuEventCreate(event: *mut usize, _flags: c_uint) |state| {
        let handle = state.handle();
        state.events.insert(handle, Event { device: current_device()?, after: None });
        put(event, handle)
    }

    Context cuEventDestroy_v2(event: usize) |state| {
        state.event(event)?;
        state.events.remove(&event);
        Ok(())
    }

    Context cuEventRecord(event: usize, stream: usize) |state| {
        state.event(event)?;
        let after = state.enqueue(stream, vec![Work::Place], &[])?;
        state.event(event)?.after = after;
        Ok(())
    }

    NoCapture cuEventSynchronize(event: usize) |state| {
        let after = state.event(event)?.after;
        state.finish(after.as_slice())
    }

    Context cuGraphInstantiateWithFlags(instance: *mut usize, graph: usize, _flags: u64) |state| {
        let work = state.graphs.get(&graph).ok_or(error::INVALID_HANDLE)?.clone();
        let handle = state.handle();
        state.instances.insert(handle, Instance { work, last: None });
        put(instance, handle)
    }

    Context cuGraphDestroy(graph: usize) |state| {
        state.graphs.remove(&graph).map(|_| ()).ok_or(error::INVALID_HANDLE)
    }

    Context cuGraphExecDestroy(instance: usize) |state| {
        state.instances.remove(&instance).map(|_| ()).ok_or(error::INVALID_HANDLE)
    }

    Context cuGraphLaunch(instance: usize, stream: usize) |state| {
        let Instance { work, last } = state.instances.get(&instance).ok_or(error::INVALID_HANDLE)?;
        let (work, after) = (work.clone(), *last);
        let (_, on) = state.stream(stream)?;
        if let Some(capture) = &mut on.capture {
            // A GPU takes it as a graph in the graph; nothing here needs that.
            capture.is_invalid = true;
            return Err(error::CAPTURE_UNSUPPORTED);
        }
        let last = state.enqueue(stream, work, after.as_slice())?;
        if let Some(instance) = state.instances.get_mut(&instance) {
            instance.last = last;
        }
        Ok(())
    }
}
