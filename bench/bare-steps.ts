/** The baseline of the engine bench: node-llama-cpp stepped in this process, with nothing around it. */
import {
  getLlama,
  type Llama,
  type LlamaContextSequence,
  LlamaLogLevel,
  type LlamaModel,
  type Token,
} from 'node-llama-cpp';

export interface BareOptions {
  readonly modelPath: string;
  readonly sequences: number;
  readonly contextTokens: number;
}

/** All streams' generators are advanced in one tick, in ascending order of sequence ids: one decode a step. */
export class BareSteps {
  readonly #llama: Llama;
  readonly #model: LlamaModel;
  readonly #sequences: readonly LlamaContextSequence[];

  private constructor(llama: Llama, model: LlamaModel, sequences: readonly LlamaContextSequence[]) {
    this.#llama = llama;
    this.#model = model;
    this.#sequences = sequences;
  }

  static async load({ modelPath, sequences, contextTokens }: BareOptions): Promise<BareSteps> {
    const llama = await getLlama({
      gpu: false,
      build: 'never',
      skipDownload: true,
      progressLogs: false,
      logLevel: LlamaLogLevel.error,
    });
    const threads = Math.max(1, llama.cpuMathCores - 1);
    llama.maxThreads = threads;
    const model = await llama.loadModel({ modelPath });
    const context = await model.createContext({ contextSize: contextTokens, sequences, threads, batchSize: 512 });
    return new BareSteps(
      llama,
      model,
      Array.from({ length: sequences }, () => context.getSequence()),
    );
  }

  /** The tokens that end an answer. Here they do not. */
  get endTokens(): readonly number[] {
    return [...this.#model.iterateAllTokens()].filter((token) => this.#model.isEogToken(token));
  }

  /** Answers all prompts at once with `tokens` tokens each; how many came out. */
  async generate(prompts: readonly string[], tokens: number): Promise<number> {
    const streams: AsyncGenerator<Token, void>[] = [];
    for (const [index, prompt] of prompts.entries()) {
      const sequence = this.#sequences[index];
      if (sequence === undefined) throw new Error('more prompts than sequences');
      await sequence.clearHistory();
      const options = { temperature: 0, topK: 40, topP: 1, yieldEogToken: true };
      streams.push(sequence.evaluate(this.#model.tokenize(prompt), options));
    }
    let count = 0;
    const texts = streams.map(() => '');
    for (let step = 0; step < tokens; step += 1) {
      const results = await Promise.all(streams.map((stream) => stream.next()));
      for (const [index, { value }] of results.entries()) {
        if (value === undefined) continue;
        count += 1;
        texts[index] += this.#model.detokenize([value]);
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    await Promise.all(streams.map((stream) => stream.return()));
    return count;
  }

  async close(): Promise<void> {
    await this.#llama.dispose();
  }
}
