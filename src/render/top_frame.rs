//! Where a crash happened, in a few words.

use cdh_symbolize::Backtrace;

use super::terminal_line;

/// The first frame of the user's own code, as `function file:line`. Runtime libraries, the way the process
/// ended and inlined functions of a standard library are skipped; without such a frame, the first frame
/// that has a name. `None` if there are no frames.
#[must_use]
pub fn top_frame(backtrace: &Backtrace) -> Option<String> {
    let frame = backtrace.own_frame()?;
    Some(terminal_line(&match (&frame.function, &frame.location) {
        (Ok(function), Some(place)) => {
            let file = place.file.rsplit('/').next().unwrap_or(&place.file);
            format!("{} {file}:{}", function.name, place.line)
        }
        (Ok(function), None) => function.name.clone(),
        (Err(_), _) => {
            let module = frame.module.and_then(|index| backtrace.modules.get(index));
            let path = module.map_or("??", |module| module.path.as_str());
            let name = path.rsplit('/').next().unwrap_or(path);
            let at = frame.svma.map_or(frame.pc.0, |svma| svma.0);
            format!("{name}+{at:#x}")
        }
    }))
}
