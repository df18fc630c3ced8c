/** The model alone, without a node around it: prompts as the file's own template renders them, greedy answers. */
import { Template } from '@huggingface/jinja';
import { getLlama, type LlamaContextSequence, LlamaLogLevel, type LlamaModel, type Token } from 'node-llama-cpp';

const PARALLEL = 4;
const MAX_TOKENS = 700;

/** As the chat template reads it. */
export interface Message {
  readonly role: 'system' | 'user' | 'assistant' | 'tool';
  readonly content: string;
  readonly tool_calls?: readonly { readonly name: string; readonly arguments: unknown }[];
}

/** The answer's text without control tokens, and sizes in tokens. */
export interface Answer {
  readonly text: string;
  readonly tokens: number;
  readonly promptTokens: number;
}

/** A loaded model; what llama.cpp warned of while loading is in `warnings`. */
export class DemoRun {
  readonly warnings: readonly string[];
  readonly contextTokens: number;
  readonly #model: LlamaModel;
  readonly #template: Template;
  readonly #free: LlamaContextSequence[];
  readonly #waiting: ((sequence: LlamaContextSequence) => void)[] = [];

  /** Use `load`. */
  constructor(model: LlamaModel, sequences: LlamaContextSequence[], warnings: readonly string[]) {
    this.#model = model;
    this.#free = sequences;
    this.warnings = warnings;
    this.contextTokens = model.trainContextSize;
    this.#template = new Template(model.fileInfo.metadata.tokenizer?.chat_template ?? '');
  }

  /** @throws where llama.cpp cannot load the file. */
  static async load(path: string): Promise<DemoRun> {
    const warnings: string[] = [];
    const llama = await getLlama({
      gpu: false,
      build: 'never',
      skipDownload: true,
      logLevel: LlamaLogLevel.warn,
      logger: (_level, message) => warnings.push(message.trim()),
    });
    const model = await llama.loadModel({ modelPath: path });
    const context = await model.createContext({ sequences: PARALLEL, contextSize: model.trainContextSize, threads: 1 });
    const sequences = Array.from({ length: PARALLEL }, () => context.getSequence());
    return new DemoRun(model, sequences, warnings);
  }

  /** Frees what llama.cpp holds; the process cannot end before. */
  close(): Promise<void> {
    return this.#model.llama.dispose();
  }

  /** The prompt's text, up to where the assistant begins to speak. */
  prompt(messages: readonly Message[], tools?: readonly unknown[]): string {
    return this.#template.render({ messages, tools, add_generation_prompt: true });
  }

  /** The greedy answer. */
  chat(messages: readonly Message[], tools?: readonly unknown[]): Promise<Answer> {
    return this.complete(this.prompt(messages, tools));
  }

  /** What stands between, greedy. */
  fill(prefix: string, suffix: string): Promise<Answer> {
    return this.complete(`<|fim_prefix|>${prefix}<|fim_suffix|>${suffix}<|fim_middle|>`);
  }

  /** Goes on with a text in which control tokens act, for at most 700 tokens. A seed asks for temperature 1. */
  async complete(text: string, seed?: number): Promise<Answer> {
    const sequence = this.#free.pop() ?? (await new Promise<LlamaContextSequence>((free) => this.#waiting.push(free)));
    try {
      return await this.#generate(sequence, this.#model.tokenize(text, true), seed);
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free.push(sequence);
      else next(sequence);
    }
  }

  /** Token ids; control tokens act. */
  tokenize(text: string): readonly number[] {
    return this.#model.tokenize(text, true);
  }

  async #generate(sequence: LlamaContextSequence, prompt: Token[], seed: number | undefined): Promise<Answer> {
    await sequence.clearHistory();
    const tokens: Token[] = [];
    const sampling = seed === undefined ? { temperature: 0 } : { temperature: 1, seed };
    for await (const token of sequence.evaluate(prompt, sampling)) {
      tokens.push(token);
      if (tokens.length >= MAX_TOKENS || prompt.length + tokens.length >= this.contextTokens) break;
    }
    return { text: this.#model.detokenize(tokens), tokens: tokens.length, promptTokens: prompt.length };
  }
}
