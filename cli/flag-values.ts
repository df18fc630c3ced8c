/** Values of flags that are not settings. */
import { CliError, EXIT, type Invocation } from './command.ts';

/** The last value of the flag, or null when it was not given. */
export function flagText({ flags }: Invocation, name: string): string | null {
  return flags[name]?.at(-1) ?? null;
}

/**
 * The flag as a whole number within bounds, or null when it was not given.
 *
 * @throws CliError (usage) that names them.
 */
export function flagInteger(invocation: Invocation, name: string, min: number, max: number): number | null {
  const text = flagText(invocation, name);
  if (text === null) return null;
  const value = /^-?\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw new CliError(`--${name} is "${text}": expected a whole number from ${min} to ${max}`, EXIT.usage);
}

/** The positional of this place; @throws CliError (usage) that says what is missing. */
export function required({ positionals }: Invocation, place: number, usage: string): string {
  const value = positionals[place];
  if (value !== undefined && value !== '') return value;
  throw new CliError(`something is missing: ${usage}`, EXIT.usage);
}
