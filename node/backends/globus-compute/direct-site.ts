/** A fixture's endpoint that is a server with OpenAI's API: an HTTP backend that is asked for one model. */
import type { CancelTimer, Clock } from '../../common/clock.ts';
import type { EndpointState, FixtureEndpoint } from '../../storage/fixtures/fixture-types.ts';
import type { StatusManifest } from '../../storage/status-manifest.ts';
import type { GatewayHolder, GatewayView } from '../gateway.ts';
import { askNamed } from '../openai-http/model-list.ts';
import { OpenAiHttpBackend } from '../openai-http/openai-http.ts';
import type { FixtureSite } from './fixture-site.ts';
import { type SaidIdle, saidIdle } from './manifest-state.ts';

export interface DirectSiteComponents {
  readonly clock: Clock;
  /** The key of now; null = none. */
  readonly key: () => string | null;
  /** Of its cluster; null where there is none. */
  readonly manifest: { readonly current: StatusManifest | null } | null;
  readonly onChange: () => void;
}

const POLL_MS = 30_000;
const RETRY_MS = 1000;

/** Those with the usual path are also asked what vLLM's and llama.cpp's servers have beside it. */
function baseOf(apiUrl: string): { readonly url: string; readonly apiPath: string } {
  return apiUrl.endsWith('/v1') ? { url: apiUrl.slice(0, -3), apiPath: '/v1' } : { url: apiUrl, apiPath: '' };
}

export class DirectSite implements FixtureSite {
  readonly endpoint: FixtureEndpoint;
  readonly freeNodes = null;
  readonly #components: DirectSiteComponents;
  readonly #backend: OpenAiHttpBackend;
  readonly #url: string;
  readonly #place: NonNullable<GatewayHolder['place']>;
  readonly #life = new AbortController();
  #key: string | null;
  #polling: Promise<void> | null = null;
  #cancel: CancelTimer = () => {};

  /** Nothing is asked before `look`. */
  constructor(components: DirectSiteComponents, endpoint: FixtureEndpoint) {
    const { clock, key, onChange } = components;
    const { slug, model, direct } = endpoint;
    const { apiUrl = '', timeoutMs = 0, boundary = 'public' } = direct ?? {};
    this.#components = components;
    this.#key = key();
    this.endpoint = endpoint;
    this.#url = apiUrl;
    this.#place = { priority: 0, boundary };
    this.#backend = new OpenAiHttpBackend(
      { clock, key, onChange, askModels: askNamed([model]), onTrouble: () => this.#lookIn(RETRY_MS) },
      {
        fingerprint: `direct:${slug}`,
        name: slug,
        ...baseOf(apiUrl),
        limits: { headersMs: timeoutMs, wholeAnswerMs: timeoutMs },
      },
    );
  }

  get fingerprint(): string {
    return this.#backend.id;
  }

  get state(): EndpointState {
    const { status, failures } = this.#backend;
    if (status === 'offline' && failures === 0) return 'unknown';
    if (status === 'offline' || status === 'unauthorized') return 'offline';
    const idle = this.#idle;
    if (idle !== null) return idle.state;
    return status === 'busy' ? 'queued' : 'running';
  }

  /** Asks at once, and from then on by itself. */
  look(): void {
    if (this.#polling !== null || this.#life.signal.aborted) return;
    this.#cancel();
    this.#polling = this.#backend
      .poll(this.#life.signal)
      .then(
        () => this.#lookIn(this.#delayMs()),
        () => {},
      )
      .finally(() => {
        this.#polling = null;
      });
  }

  holder(): GatewayHolder | null {
    const entry = this.#backend.models.find((each) => each.id === this.endpoint.model);
    if (entry === undefined || this.#idle !== null) return null;
    const { shared = false } = this.endpoint;
    return { backend: this.#backend, entry, suspect: this.#backend.status !== 'online', place: this.#place, shared };
  }

  view(): GatewayView {
    const { status, latencyMs, models, problem } = this.#backend;
    const idle = this.#idle;
    return {
      ...{ fingerprint: this.fingerprint, kind: 'http', name: this.endpoint.slug, url: this.#url },
      ...{ status, latencyMs, models, problem },
      ...(idle !== null && { status: idle.state === 'queued' ? 'busy' : 'offline', models: [], problem: idle.problem }),
      hasKey: this.#components.key() !== null,
      place: this.#place,
    };
  }

  drop(): void {
    this.#backend.forget(this.endpoint.model);
  }

  rekeyed(): void {
    const key = this.#components.key();
    if (key === this.#key) return;
    this.#key = key;
    this.#backend.rekeyed();
    this.look();
  }

  async retire(): Promise<void> {
    this.#cancel();
    this.#life.abort();
    this.#backend.retire();
    await this.#polling;
  }

  close(): void {
    this.#backend.close();
  }

  get #idle(): SaidIdle | null {
    return saidIdle(this.endpoint.model, this.#components.manifest?.current ?? null);
  }

  /** A dead server is asked after 1, 2, 4, … seconds, at last as seldom as one that lives. */
  #delayMs(): number {
    const { failures } = this.#backend;
    return failures === 0 ? POLL_MS : Math.min(POLL_MS, RETRY_MS * 2 ** Math.min(failures - 1, 10));
  }

  #lookIn(delayMs: number): void {
    this.#cancel();
    if (!this.#life.signal.aborted) this.#cancel = this.#components.clock.after(delayMs, () => this.look());
  }
}
