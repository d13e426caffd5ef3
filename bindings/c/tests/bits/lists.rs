//! Names, settings, messages and versions.

use super::*;

/// All names and settings, from which a binding can make its interface.
#[test]
fn names_and_settings_are_listed_as_rust_has_them() {
    let names: Vec<_> = (0..)
        .map(|index| adamant_optimizer_name(index))
        .take_while(|name| !name.is_null())
        .map(text_of)
        .collect();
    let expected: Vec<_> = AnyOptimizer::NAMES.iter().copied().chain(["rowwise_adam"]).collect();
    assert_eq!(names, expected);
    for name in names {
        let handle = Handle::new(name);
        let rust = AnyOptimizer::new(if name == "rowwise_adam" { "adam" } else { name });
        let rust = rust.expect("a name");
        let mut count = 0;
        // SAFETY: a live handle, and memory that may be written; here and below.
        ok(unsafe { adamant_optimizer_setting_count(handle.0, &mut count) });
        assert_eq!(count, rust.settings().len());
        for (index, setting) in rust.settings().iter().enumerate() {
            // SAFETY: zeros are valid.
            let mut found = unsafe { mem::zeroed::<adamant_setting>() };
            let size = size_of::<adamant_setting>();
            // SAFETY: as above.
            ok(unsafe { adamant_optimizer_setting(handle.0, index, &mut found, size) });
            assert_eq!((found.size, text_of(found.name)), (size, setting.name));
            let (default, number, changed) = match rust.get(setting.name).expect("a setting") {
                SettingValue::Number(x) => {
                    (SettingValue::Number(x), x, SettingValue::Number(x + 0.25))
                }
                SettingValue::Count(x) => {
                    let x = x as f64;
                    (SettingValue::Number(x), x, SettingValue::Number(x + 5.0))
                }
                SettingValue::Flag(x) => {
                    let number = u8::from(x).into();
                    (SettingValue::Number(number), number, SettingValue::Number(1.0 - number))
                }
                SettingValue::Choice(choice) => {
                    assert_eq!(text_of(found.default_name), choice);
                    (SettingValue::Choice(choice), 0.0, SettingValue::Choice("hat"))
                }
                _ => panic!("a kind of setting that C does not have"),
            };
            assert_eq!(found.default_value, number, "{name}: {}", setting.name);
            let (kind, allowed) = match setting.kind {
                SettingKind::Number(_) => (0, setting.kind.to_string()),
                SettingKind::Count => (1, setting.kind.to_string()),
                SettingKind::Flag => (2, "0 or 1".into()),
                _ => (3, setting.kind.to_string()),
            };
            assert_eq!((found.kind, text_of(found.allowed)), (kind, &*allowed));
            assert_eq!(handle.get(setting.name), Ok(default));
            ok(handle.set(setting.name, changed));
            assert_eq!(handle.get(setting.name), Ok(changed));
        }
    }
}

#[test]
fn unknown_names_and_wrong_values_are_refused_with_the_known_ones() {
    let mut handle = ptr::null_mut();
    // SAFETY: a text, and a pointer to a pointer.
    let status = unsafe { adamant_optimizer_new(c"Adam".as_ptr(), &mut handle) };
    assert_eq!((status, handle.is_null()), (ADAMANT_UNKNOWN_OPTIMIZER, true));
    let names = AnyOptimizer::NAMES.join(", ");
    assert_eq!(message(), format!("\"Adam\" is no optimizer; known: {names}, rowwise_adam"));

    let adam = Handle::new("adam");
    let number = SettingValue::Number;
    assert_eq!(adam.set("beta3", number(0.5)), ADAMANT_UNKNOWN_SETTING);
    assert!(message().starts_with("Adam has no setting \"beta3\"; known: lr, beta1"));
    assert_eq!(adam.get("beta3"), Err(ADAMANT_UNKNOWN_SETTING));
    assert_eq!(adam.set("maximize", number(2.0)), ADAMANT_WRONG_SETTING);
    assert_eq!(message(), "maximize is 2, but must be 0 or 1");
    assert_eq!(adam.set("epsilon", number(1.0)), ADAMANT_WRONG_SETTING);
    assert_eq!(adam.set("lr", SettingValue::Choice("fast")), ADAMANT_WRONG_SETTING);
    ok(adam.set("lr", number(-1.0)));
    // SAFETY: a live handle.
    assert_eq!(unsafe { adamant_optimizer_check(adam.0) }, ADAMANT_HYPER_PARAMETER);
}

#[test]
fn instruction_sets_are_those_of_rust() {
    assert_eq!(adamant_isa_detect(), isa_of(Isa::detect()));
    for isa in Isa::ALL {
        assert_eq!(adamant_isa_is_available(isa_of(isa)) == 1, isa.is_available());
        // SAFETY: a text that lives as long as the library.
        let name = unsafe { CStr::from_ptr(adamant_isa_name(isa_of(isa))) };
        assert_eq!(name.to_str(), Ok(isa.name()));
    }
    for unknown in [0, 5, u32::MAX] {
        assert_eq!(adamant_isa_is_available(unknown), 0);
        assert!(adamant_isa_name(unknown).is_null());
    }
    let mut selected = 0;
    // SAFETY: memory that is alive.
    match (unsafe { adamant_isa_selected(&mut selected) }, Isa::selected()) {
        (ADAMANT_OK, Ok(isa)) => assert_eq!(selected, isa_of(isa)),
        (found, expected) => assert!(found != ADAMANT_OK && expected.is_err()),
    }
}

#[test]
fn the_message_is_that_of_the_error() {
    let handle = Handle::of(Adam { beta2: 1.0, ..Adam::default() });
    let status = step(&handle, &serial(Isa::Scalar), ptr::null(), &[]);
    assert_eq!(status, ADAMANT_HYPER_PARAMETER);
    assert_eq!(message(), "beta2 is 1, but must be at least 0 and less than 1");
}

/// The version of the crate, in the library and in the committed header.
#[test]
fn the_version_is_that_of_the_crate() {
    // SAFETY: a text that lives as long as the library.
    let text = unsafe { CStr::from_ptr(adamant_version_string()) };
    assert_eq!(text.to_str(), Ok(env!("CARGO_PKG_VERSION")));
    let parts = [adamant_version() >> 16, adamant_version() >> 8 & 0xff, adamant_version() & 0xff];
    let header = include_str!("../../include/adamant.h");
    for (name, part) in ["MAJOR", "MINOR", "PATCH"].into_iter().zip(parts) {
        assert!(header.contains(&format!("#define ADAMANT_VERSION_{name} {part}\n")), "{name}");
    }
}
