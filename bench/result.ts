/** What a bench found, and how it is shown and kept. */
import { cpus, loadavg, totalmem } from 'node:os';

export interface BenchRow {
  readonly what: string;
  readonly value: number;
  readonly unit: string;
  /** The same figure of the baseline, measured in the same run. */
  readonly baseline?: number;
  /** value / baseline. */
  readonly ratio?: number;
  /** What is to be reached, in words. */
  readonly target?: string;
}

export interface BenchResult {
  readonly name: string;
  readonly rows: readonly BenchRow[];
}

/** The machine and its load: figures without them mean little. */
export function machineLine(): string {
  const [cpu] = cpus();
  const load = loadavg().map((value) => value.toFixed(2));
  const memory = Math.round(totalmem() / 2 ** 30);
  return `${cpus().length} x ${cpu?.model.trim() ?? 'unknown'}, ${memory} GiB, Node ${process.version}, load ${load.join(' ')}`;
}

const figure = (value: number | undefined): string =>
  value === undefined ? '' : Number(value.toPrecision(4)).toString();

/** A plain text table of one result. */
export function table({ name, rows }: BenchResult): string {
  const header = ['what', 'value', 'unit', 'baseline', 'ratio', 'target'];
  const cells = rows.map((row) => [
    row.what,
    figure(row.value),
    row.unit,
    figure(row.baseline),
    figure(row.ratio),
    row.target ?? '',
  ]);
  const widths = header.map((title, i) => Math.max(title.length, ...cells.map((cell) => (cell[i] ?? '').length)));
  const line = (cell: readonly string[]): string =>
    cell
      .map((text, i) => text.padEnd(widths[i] ?? 0))
      .join('  ')
      .trimEnd();
  return [`# ${name}`, line(header), ...cells.map(line)].join('\n');
}
