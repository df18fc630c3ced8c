/** Questions whose answers are known: of scripted engines by arithmetic, of the demo model from an undisturbed run. */
import assert from 'node:assert/strict';
import type { FaultMesh } from './fault-mesh.ts';
import { type Golden, type Question, scriptedGolden } from './ledger.ts';

/** Ids of the models: every pair of twins serves one. */
export type FaultModel = 'scripted' | 'demo';

/** Streams read by hand and by the official client, and whole answers of both. */
const MANNERS = [
  { stream: true, client: 'http' },
  { stream: true, client: 'openai' },
  { stream: false, client: 'http' },
  { stream: true, client: 'http' },
  { stream: false, client: 'openai' },
  { stream: true, client: 'http' },
] as const;

interface DemoQuestion {
  readonly prompt: string;
  readonly temperature: number;
  readonly seed: number;
}

/** Long answers of the demo model; greedy and sampled. */
const DEMO_QUESTIONS: readonly DemoQuestion[] = [
  'Tell me a story about a fox named Anna.',
  'Tell me a story about a bear named Paul.',
  'Tell me a story about a crow named Iris.',
].flatMap((prompt, index) => [
  { prompt, temperature: 0, seed: 1 },
  { prompt, temperature: 0.8, seed: 11 + index },
]);
const DEMO_TOKENS = 200;
const SCRIPTED_TOKENS = 60;

export class FaultQuestions {
  readonly #goldens = new Map<string, Golden>();
  #made = 0;

  /** Asks every demo question of the engines of `machines` themselves, which must agree and are loaded afterwards. */
  async learn(mesh: FaultMesh, machines: readonly number[]): Promise<void> {
    for (const machine of machines) {
      for (const question of this.make('demo', DEMO_QUESTIONS.length, { stream: true, client: 'http', local: true })) {
        const { text, finish, completionTokens, error } = await mesh.ask(question, machine).receipt;
        assert.equal(error, null);
        const golden = { text, finish: finish ?? '', completionTokens: completionTokens ?? 0 };
        assert.deepEqual(golden, this.#goldens.get(goldenKey(question)) ?? golden, 'all machines answer alike');
        this.#goldens.set(goldenKey(question), golden);
      }
    }
  }

  /** `count` questions in all manners of asking. Scripted answers are `maxTokens` (default 60) long. */
  make(model: FaultModel, count: number, more: Partial<Question> = {}): Question[] {
    return Array.from({ length: count }, (_, index) => {
      this.#made += 1;
      const manner = MANNERS[index % MANNERS.length] ?? MANNERS[0];
      return { id: `q${this.#made}`, ...manner, ...(model === 'demo' ? demo(index) : scripted(this.#made)), ...more };
    });
  }

  /** The `index`-th of the manners and, for the demo model, of the questions. */
  one(model: FaultModel, index: number, more: Partial<Question> = {}): Question {
    const question = this.make(model, (index % MANNERS.length) + 1, more).at(-1);
    assert.ok(question !== undefined);
    return question;
  }

  golden(question: Question): Golden {
    if (question.model === 'scripted') return scriptedGolden(question);
    const golden = this.#goldens.get(goldenKey(question));
    assert.ok(golden !== undefined, `no golden answer to ${goldenKey(question)}`);
    return golden;
  }
}

type Asked = Omit<Question, 'id' | 'stream' | 'client'>;

function demo(index: number): Asked {
  const { prompt, temperature, seed } = DEMO_QUESTIONS[index % DEMO_QUESTIONS.length] ?? { ...NOTHING };
  return { model: 'demo', prompt, temperature, seed, maxTokens: DEMO_TOKENS };
}

const NOTHING: DemoQuestion = { prompt: '', temperature: 0, seed: 0 };

function scripted(serial: number): Asked {
  const seed = (serial * 7_368_787) % 2 ** 31;
  return { model: 'scripted', prompt: 'count', temperature: 0, seed, maxTokens: SCRIPTED_TOKENS };
}

const goldenKey = ({ prompt, temperature, seed, maxTokens }: Question): string =>
  `${prompt} at ${temperature} with seed ${seed} up to ${maxTokens}`;
