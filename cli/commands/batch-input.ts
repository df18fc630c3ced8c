/** The lines of an input file on their way to the node. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { CliError } from '../command.ts';

export interface BatchInput {
  readonly path: string;
  /** Asked instead of what the lines name; null: what they name. */
  readonly model: string | null;
}

/** What a file comes to when it is sent. */
export interface ReadInput {
  /** Of what is sent: sha256, hex. */
  readonly digest: string;
  /** Of the first line that names one. */
  readonly endpoint: string;
  readonly lines: number;
}

const DEFAULT_ENDPOINT = '/v1/chat/completions';

/** What is sent for the file, line by line. A line that is no JSON goes as it is: the node says what is wrong with it. */
export async function* sentLines({ path, model }: BatchInput): AsyncGenerator<Buffer> {
  const stream = createReadStream(path);
  try {
    for await (const line of createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY })) {
      yield Buffer.from(`${model === null ? line : withModel(line, model)}\n`);
    }
  } catch (error) {
    throw unreadable(path, error);
  } finally {
    stream.destroy();
  }
}

/** Reads the file once. @throws CliError when it cannot be read. */
export async function readInput(input: BatchInput): Promise<ReadInput> {
  const hash = createHash('sha256');
  let endpoint: string | null = null;
  let lines = 0;
  for await (const line of sentLines(input)) {
    hash.update(line);
    lines += 1;
    endpoint ??= urlOf(line.toString('utf8'));
  }
  return { digest: hash.digest('hex'), endpoint: endpoint ?? DEFAULT_ENDPOINT, lines };
}

function withModel(line: string, model: string): string {
  const json = parsed(line);
  if (json === null || typeof json['body'] !== 'object' || json['body'] === null) return line;
  return JSON.stringify({ ...json, body: { ...json['body'], model } });
}

function urlOf(line: string): string | null {
  const url = parsed(line)?.['url'];
  return typeof url === 'string' ? url : null;
}

function parsed(line: string): Record<string, unknown> | null {
  try {
    const json: unknown = JSON.parse(line);
    return typeof json === 'object' && json !== null && !Array.isArray(json) ? (json as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}

function unreadable(path: string, error: unknown): CliError {
  const reason = (error as NodeJS.ErrnoException | null)?.code ?? (error instanceof Error ? error.message : 'error');
  return new CliError(`cannot read ${path} (${reason})`);
}
