/** What a command writes to, and how text looks there. */

export type Colour = 'red' | 'green' | 'yellow' | 'cyan' | 'dim' | 'bold';

/** Standard output and error of one command. */
export interface Terminal {
  /** Is a person reading standard output? */
  readonly isTty: boolean;
  /** Characters in a line; 80 where unknown. */
  readonly columns: number;
  write(text: string): void;
  line(text: string): void;
  errorLine(text: string): void;
  /** One JSON document on a line of its own. */
  json(value: unknown): void;
  paint(colour: Colour, text: string): string;
}

const CODES: Readonly<Record<Colour, number>> = { red: 31, green: 32, yellow: 33, cyan: 36, dim: 2, bold: 1 };

interface Output {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

/** A terminal over two streams; colours only for people, and never when `NO_COLOR` is set. */
export function createTerminal(
  out: Output,
  error: Output,
  env: Readonly<Record<string, string | undefined>>,
): Terminal {
  const isTty = out.isTTY === true;
  const coloured = isTty && (env['NO_COLOR'] ?? '') === '' && env['TERM'] !== 'dumb';
  return {
    isTty,
    get columns() {
      return out.columns ?? 80;
    },
    write: (text) => void out.write(text),
    line: (text) => void out.write(`${text}\n`),
    errorLine: (text) => void error.write(`${text}\n`),
    json: (value) => void out.write(`${JSON.stringify(value)}\n`),
    paint: (colour, text) => (coloured ? `\u001b[${CODES[colour]}m${text}\u001b[0m` : text),
  };
}

/** Text from elsewhere, made safe for a terminal: no control characters, no characters that turn the reading direction. */
export function clean(text: string): string {
  return text.replace(/[\p{Cc}\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, '');
}

/** Like `clean`, for text of several lines. */
export function cleanLines(text: string): string {
  return text.replace(/[^\n\t]+/g, (part) => clean(part));
}

/** Columns padded to their widest cell; the last is not padded. Cells are cleaned. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): readonly string[] {
  const all = [head, ...rows].map((row) => row.map((cell) => clean(cell)));
  const widths = head.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  return all.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}
