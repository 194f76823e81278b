//! Names and lines of this test's own Rust code against those of addr2line.

use super::*;

/// Frames by addr2line, innermost first: linkage name and line.
fn by_addr2line(
    context: &addr2line::Context<gimli::EndianSlice<'_, gimli::LittleEndian>>,
    at: u64,
) -> Vec<(Option<String>, Option<u32>)> {
    let mut frames = context.find_frames(at).skip_all_loads().unwrap();
    let mut found = Vec::new();
    while let Ok(Some(frame)) = frames.next() {
        let name = frame
            .function
            .and_then(|name| name.raw_name().ok().map(|n| n.into_owned()));
        found.push((
            name,
            frame
                .location
                .and_then(|at| at.line)
                .filter(|line| *line != 0),
        ));
    }
    found
}

#[test]
fn names_and_lines_equal_addr2lines_on_rust() {
    let data = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let object = cdh_elfcore::ElfObject::parse(&data).unwrap();
    let load = |id: gimli::SectionId| -> Result<_, gimli::Error> {
        let section = object.section(id.name());
        Ok(gimli::EndianSlice::new(
            section.map_or(&[][..], |s| s.data),
            gimli::LittleEndian,
        ))
    };
    let context = addr2line::Context::from_dwarf(gimli::Dwarf::load(load).unwrap()).unwrap();
    let module = cdh_elfcore::Module {
        path: b"/test".to_vec(),
        deleted: false,
        kind: ModuleKind::Executable,
        ranges: vec![cdh_elfcore::ModuleRange {
            start: cdh_elfcore::Avma(0),
            end: cdh_elfcore::Avma(1 << 40),
            offset: cdh_elfcore::FileOffset(u64::MAX),
        }],
        build_id: None,
        bias: Some(0),
    };
    let loaded = [LoadedModule::with_object(&module, object.clone())];
    let arena = SectionArena::new();
    let symbolizer = Symbolizer::new(&loaded, &arena, &cdh_symbolize::Alone);
    let text = object.section(".text").unwrap();
    let frame = |at: u64| UnwoundFrame {
        pc: cdh_elfcore::Avma(at),
        sp: None,
        trust: FrameTrust::Registers,
        module: Some(0),
        svma: Some(cdh_elfcore::Svma(at)),
        is_return_address: false,
        signal_frame: false,
    };
    let step = usize::try_from(text.size / 3000).unwrap();
    let end = text.address.0 + text.size;
    let frames: Vec<UnwoundFrame> = (text.address.0..end).step_by(step).map(frame).collect();
    let table = symbolizer.look_up([frames.as_slice()]);
    let mut compared = 0;
    for frame in &frames {
        let theirs = by_addr2line(&context, frame.pc.0);
        if theirs.is_empty() || theirs.iter().any(|(name, _)| name.is_none()) {
            continue;
        }
        let ours: Vec<(Option<String>, Option<u32>)> = symbolizer
            .frames(std::slice::from_ref(frame), &table)
            .into_iter()
            .map(|frame| {
                (
                    frame.function.ok().map(|f| f.raw.clone()),
                    frame.location.map(|at| at.line),
                )
            })
            .collect();
        let names = |frames: &[(Option<String>, Option<u32>)]| -> Vec<Option<u32>> {
            frames.iter().map(|frame| frame.1).collect()
        };
        assert_eq!(
            names(&ours),
            names(&theirs),
            "{:#x}\n{ours:?}\n{theirs:?}",
            frame.pc.0
        );
        compared += 1;
    }
    assert!(compared > 1000, "{compared}");
}
