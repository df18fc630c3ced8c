/** What has come of an answer, whoever gave it: all that is needed to go on with it elsewhere. Pure. */
import type {
  AcceptedEvent,
  ChunkEvent,
  EndEvent,
  FinishReason,
  InferenceEvent,
  Resume,
} from '../../protocols/inference/events.ts';
import { MeshError } from '../common/errors.ts';

/** Tokens kept of one answer, all choices together: as many as a request carries. An answer past it is not continued. */
const MOST_TOKENS = 1_048_576;
/** Characters kept of an answer without tokens. */
const MOST_CHARS = 16_777_216;
const MOST_CHOICES = 2048;

interface EmittedChoice {
  readonly tokens: number[];
  text: string;
  finish: FinishReason | null;
  /** Pieces of text that came without tokens. */
  chunks: number;
}

/** The answer of one request. What another attempt adds must fit to what is here. */
export class EmittedAnswer {
  readonly #choices: EmittedChoice[] = [];
  readonly #mostChoices: number;
  #accepted: AcceptedEvent | null = null;
  #tokens = 0;
  #chars = 0;
  #chunks = 0;
  #hasTokenless = false;
  #isPlainText = true;
  #isTooLong = false;
  /** Another model goes on with it: of what came so far only the text counts. */
  #isTextOnly = false;

  /** `choices`: how many answers the request asks for; where it is not known, as many as come are. */
  constructor(choices: number | undefined) {
    this.#mostChoices = choices ?? MOST_CHOICES;
    this.#grow(choices ?? 1);
  }

  /** Of the first attempt that was accepted; null before. */
  get accepted(): AcceptedEvent | null {
    return this.#accepted;
  }

  /** Tokens so far, all choices together. */
  get tokens(): number {
    return this.#tokens;
  }

  /** Chunks so far: for an answer whose tokens nobody told, the best guess at their number. */
  get chunks(): number {
    return this.#chunks;
  }

  /** Tokens of the longest choice. */
  get longest(): number {
    return this.#choices.reduce((most, { tokens }) => Math.max(most, tokens.length), 0);
  }

  /** Did every part of it come with its tokens, and is it of a bounded length? Then a twin can go on with it exactly. */
  get hasTokens(): boolean {
    return this.#chunks > 0 && !this.#hasTokenless && !this.#isTooLong && !this.#isTextOnly;
  }

  /** Does it go on from text alone: it came so, from a backend that tells no tokens, or another model goes on with it? */
  get isText(): boolean {
    return this.hasText && (this.#tokens === 0 || this.#isTextOnly);
  }

  /** Is it text and nothing else, of a bounded length, so that it could go on from that? */
  get hasText(): boolean {
    return this.#chunks > 0 && this.#isPlainText && !this.#isTooLong;
  }

  /** From now on it goes on from its text alone: tokens are those of the model that gave them. */
  otherModel(): void {
    this.#isTextOnly = true;
  }

  /** All choices have finished; only the `end` may be missing. */
  get isWhole(): boolean {
    return this.#choices.every(({ finish }) => finish !== null);
  }

  /**
   * Adds an event of the attempt that is under way. Is it part of the answer that is shown? The second `accepted` is not:
   * it only says that the twin began with the same prompt and the same file.
   *
   * @throws MeshError `protocol_violation` for what does not go on where the answer stands.
   */
  take(event: InferenceEvent): boolean {
    if (event.type === 'accepted') return this.#accept(event);
    if (event.type === 'chunk') this.#chunk(event);
    return true;
  }

  /** All of it, for a twin. */
  resume(): Resume {
    const { promptDigest = '', artifact = null } = this.#accepted ?? {};
    return {
      promptDigest,
      artifact: artifact ?? '',
      choices: this.#choices.map(({ tokens, finish, text, chunks }) => ({
        tokens: this.#isTextOnly ? [] : [...tokens],
        finish,
        text,
        chunks: tokens.length + chunks,
      })),
    };
  }

  /** The end of an answer that is whole, when whoever gave it did not live to say so. */
  end(): EndEvent {
    return {
      type: 'end',
      finishReasons: this.#choices.map(({ finish }) => finish ?? 'stop'),
      usage: {
        promptTokens: this.#accepted?.promptTokens ?? 0,
        completionTokens: this.#tokens === 0 ? this.#chunks : this.#tokens,
        cachedTokens: 0,
      },
      timings: { promptMs: 0, predictedMs: 0 },
    };
  }

  #accept(event: AcceptedEvent): boolean {
    const before = this.#accepted;
    if (before === null || this.#chunks === 0) {
      this.#accepted = event;
      return true;
    }
    if (this.#isTextOnly) return false;
    if (event.promptDigest !== before.promptDigest || event.artifact !== before.artifact) {
      throw violation('was to go on with an answer and began with another prompt or another file');
    }
    return false;
  }

  #chunk(event: ChunkEvent): void {
    const { index, tokens, text, finish } = event;
    const choice = this.#choiceOf(event);
    if (choice.finish !== null) throw violation('went on with a choice that had finished');
    if (index !== choice.tokens.length && !this.#isTooLong && !this.#isTextOnly) {
      throw violation(`gave token ${index} where ${choice.tokens.length} was due`);
    }
    this.#chunks += 1;
    this.#tokens += tokens.length;
    // A last chunk may hold only what was still to be released.
    if (tokens.length === 0 && (finish === undefined || choice.tokens.length === 0)) this.#hasTokenless = true;
    if (event.reasoning !== undefined || event.toolCalls !== undefined) this.#isPlainText = false;
    if (finish !== undefined) choice.finish = finish;
    if (this.#isTooLong) return;
    choice.text += text;
    this.#chars += text.length;
    if (tokens.length === 0 && text !== '') choice.chunks += 1;
    for (const token of tokens) choice.tokens.push(token);
    this.#isTooLong = this.#tokens > MOST_TOKENS || this.#chars > MOST_CHARS;
    if (this.#isTooLong) this.#forget();
  }

  #choiceOf({ choice: number }: ChunkEvent): EmittedChoice {
    if (number >= this.#mostChoices) throw violation('gave a choice that was not asked for');
    this.#grow(number + 1);
    const choice = this.#choices[number];
    if (choice === undefined) throw violation('gave a choice that cannot be');
    return choice;
  }

  #grow(count: number): void {
    while (this.#choices.length < count) this.#choices.push({ tokens: [], text: '', finish: null, chunks: 0 });
  }

  #forget(): void {
    for (const choice of this.#choices) {
      choice.tokens.length = 0;
      choice.text = '';
    }
  }
}

const violation = (what: string): MeshError => new MeshError('protocol_violation', `The node that answers ${what}`);
