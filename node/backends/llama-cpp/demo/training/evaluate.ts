/** Prints what the demo model can do, as rows of a table: `node evaluate.ts MODEL.gguf [SAMPLES.jsonl]`. */
import { readFileSync } from 'node:fs';
import { abilities } from './abilities.ts';
import { DemoRun } from './demo-run.ts';

interface Sample {
  readonly text: string;
  readonly tokens: readonly number[];
  readonly tools: readonly unknown[];
  readonly messages: Parameters<DemoRun['prompt']>[0];
}

const SHOWN_MISSES = 4;

const [path, samplesPath] = process.argv.slice(2);
if (path === undefined) {
  process.stderr.write('usage: node evaluate.ts MODEL.gguf [SAMPLES.jsonl]\n');
  process.exit(2);
}
const run = await DemoRun.load(path);
const print = (line: string): boolean => process.stdout.write(`${line}\n`);
print(`| ability | right |\n|---|---|`);
const missed: string[] = [];
for (const { name, checks } of abilities) {
  const results = await Promise.all(
    checks.map(async ({ ask, right, about }) => {
      const answer = await ask(run);
      if (right(answer)) return true;
      missed.push(`${name}: ${about} → ${JSON.stringify(answer.text.slice(0, 300))}`);
      return false;
    }),
  );
  print(`| ${name} | ${results.filter(Boolean).length} of ${results.length} |`);
  const shown = missed.filter((miss) => miss.startsWith(`${name}: `));
  missed.splice(0, missed.length, ...missed.filter((miss) => !shown.includes(miss)), ...shown.slice(0, SHOWN_MISSES));
}
print(`| warnings while loading | ${run.warnings.length} |`);
if (samplesPath !== undefined)
  print(`| corpus rendered and tokenised as by the file itself | ${compared(samplesPath)} |`);
print(['', 'Some of what was missed:', ...missed].join('\n'));
await run.close();

/** bpe.py's idea of the prompts against the template's and llama.cpp's. */
function compared(samples: string): string {
  const lines = readFileSync(samples, 'utf8').trim().split('\n');
  const same = lines.filter((line) => {
    const { text, tokens, tools, messages } = JSON.parse(line) as Sample;
    const rendered = run.prompt(messages, tools.length === 0 ? undefined : tools);
    return rendered === text && String(run.tokenize(rendered)) === String(tokens);
  });
  return `${same.length} of ${lines.length}`;
}
