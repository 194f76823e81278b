//! SIGFPE: divisions of integers, and floating-point exceptions that the program enabled.

use super::here;
use crate::cause::{Cause, Class, Fact};
use crate::instruction::Flow;
use crate::scene::Scene;

const FPE_INTDIV: i32 = 1;
const FPE_INTOVF: i32 = 2;

pub(super) fn explain(scene: &Scene<'_>) -> Option<Cause> {
    let who = scene.actor();
    match scene.crash.signal.code? {
        FPE_INTDIV => division(scene, &who),
        code @ (FPE_INTOVF..=8) => {
            let what = match code {
                3 => "divided a floating-point number by zero",
                4 => "computed a floating-point number that is too large",
                5 => "computed a floating-point number that is too small",
                6 => "computed a floating-point number that is not exact",
                7 => "did an invalid floating-point operation",
                _ => return None,
            };
            let sentence =
                format!("{who} {what}, and the program had asked for a signal in this case.");
            Some(
                Cause::new(Class::FloatingPoint, sentence)
                    .with(Fact::new(scene.crash.signal.describe()))
                    .with(here(scene)),
            )
        }
        _ => None,
    }
}

fn division(scene: &Scene<'_>, who: &str) -> Option<Cause> {
    let instruction = scene.faulting();
    let Some(instruction) = instruction else {
        // The kernel uses this code for both faults of a division.
        let sentence =
            format!("{who} divided integers, and the divisor was zero or the result does not fit.");
        return (!crate::instruction::is_built_in()).then(|| {
            Cause::new(Class::DivisionByZero, sentence)
                .with(Fact::new(scene.crash.signal.describe()))
        });
    };
    let Flow::Divide {
        divisor,
        signed,
        size,
    } = &instruction.flow
    else {
        return None;
    };
    let value = scene.value_of(&instruction, divisor, *size)?;
    let shown = Fact::new(format!(
        "the instruction at {} is `{}`",
        instruction.at, instruction.text
    ))
    .at(instruction.at.0)
    .instruction(&instruction.text)
    .location(scene.location(0));
    let is_minus_one = value == u64::MAX >> (64_u64.saturating_sub(size.saturating_mul(8))).min(63);
    let number = if *signed && is_minus_one {
        "-1".to_owned()
    } else {
        value.to_string()
    };
    let mut fact = Fact::new(format!("the divisor is {number}"));
    if let crate::Operand::Register(register) = divisor {
        fact = Fact::new(format!("the divisor, in `{}`, is {number}", register.name))
            .register(&register.name);
    }
    let (class, sentence) = match (value, *signed && is_minus_one) {
        (0, _) => (
            Class::DivisionByZero,
            format!("{who} divided an integer by zero."),
        ),
        (_, true) => (
            Class::DivisionOverflow,
            format!(
                "{who} divided the smallest integer of its type by -1, and the result does not fit."
            ),
        ),
        _ => (
            Class::DivisionOverflow,
            format!("{who} divided an integer by {number}, and the result does not fit."),
        ),
    };
    Some(
        Cause::new(class, sentence)
            .with(shown)
            .with(fact)
            .with(here(scene)),
    )
}
