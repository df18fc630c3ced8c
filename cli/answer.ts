/** How commands end: with JSON for programs, with lines for people. */
import { EXIT, type Invocation } from './command.ts';
import { table } from './terminal.ts';

/** Prints `value` as JSON where `--json` was given, the lines otherwise. Returns the exit code of success. */
export function answer({ terminal, json }: Invocation, value: unknown, ...lines: readonly string[]): number {
  if (json) terminal.json(value);
  else for (const line of lines) terminal.line(line);
  return EXIT.ok;
}

/** What a list shows to people. */
export interface Listing {
  /** Instead of an empty table. */
  readonly none: string;
  readonly columns: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** Prints `value` as JSON where `--json` was given, a table otherwise. Returns the exit code of success. */
export function answerList(invocation: Invocation, value: unknown, { none, columns, rows }: Listing): number {
  return answer(invocation, value, ...(rows.length === 0 ? [none] : table(columns, rows)));
}
