/** Model services of the stand-in manager: scaling, tokens that expire, and what their application proxy must know. */
import { randomBytes, randomUUID } from 'node:crypto';
import { badParameters, noSuch, Problem, quotaExceeded } from './problem.ts';

export interface Folder {
  readonly id: string;
  readonly name: string;
  readonly usage_mode: 'general' | 'model';
  /** Of the model in it, as `/v1/models` says it. Default: the folder's name. */
  readonly model?: string;
}

export interface Service {
  readonly id: string;
  readonly name: string;
  readonly accessKey: string;
  /** The model that it serves once a route is active. */
  readonly model: string;
  readonly isPublic: boolean;
  readonly asked: Readonly<Record<string, unknown>>;
  desired: number;
  active: number;
  errors: string[];
}

export interface ServiceRules {
  /** From the wish for replicas to the first that answers, milliseconds; null: never. */
  provisionMs: number | null;
  /** What the cluster says when replicas cannot start; null: they can. */
  fails: string | null;
  /** Replicas over all services that a key may wish for. */
  maxReplicas: number;
  /** No token lives longer than this, whatever was asked. */
  maxTokenMs: number;
}

interface Token {
  readonly serviceId: string;
  readonly untilMs: number;
}

export class Services {
  readonly rules: ServiceRules = { provisionMs: 20, fails: null, maxReplicas: 8, maxTokenMs: Number.MAX_SAFE_INTEGER };
  readonly folders: Folder[] = [];
  readonly all: Service[] = [];
  /** Tokens given so far. */
  issued = 0;
  readonly #tokens = new Map<string, Token>();
  readonly #timers = new Set<NodeJS.Timeout>();

  create(accessKey: string, asked: Readonly<Record<string, unknown>>): Service {
    const { name, image, desired_session_count: desired, config, open_to_public: open } = asked;
    if (typeof name !== 'string' || !/^[\w-]{4,24}$/.test(name))
      throw badParameters('name must have 4 to 24 characters');
    if (typeof image !== 'string' || image === '') throw badParameters('image is required');
    if (!isCount(desired)) throw badParameters('desired_session_count must be a whole number');
    if (typeof config !== 'object' || config === null) throw badParameters('config is required');
    const { model, resources } = config as { model?: unknown; resources?: unknown };
    if (typeof resources !== 'object' || resources === null) throw badParameters('config.resources is required');
    const folder = this.folders.find((each) => each.name === model || each.id === model);
    if (folder === undefined) throw noSuch('folder', `no folder "${String(model)}"`);
    if (folder.usage_mode !== 'model') throw badParameters(`folder "${folder.name}" is no model folder`);
    if (this.all.some((each) => each.accessKey === accessKey && each.name === name)) {
      throw new Problem(409, 'service-already-exists', 'A service of this name exists.');
    }
    this.#demand(accessKey, desired);
    const service: Service = {
      id: randomUUID(),
      name,
      accessKey,
      model: folder.model ?? folder.name,
      isPublic: open === true,
      asked,
      desired,
      active: 0,
      errors: [],
    };
    this.all.push(service);
    this.#settle(service);
    return service;
  }

  /** By id, of this key. */
  get(accessKey: string, id: string): Service {
    const found = this.all.find((each) => each.accessKey === accessKey && each.id === id);
    if (found === undefined) throw noSuch('endpoint', `no service ${id}`);
    return found;
  }

  scale(service: Service, to: unknown): object {
    if (!isCount(to)) throw badParameters('to must be a whole number');
    this.#demand(service.accessKey, to - service.desired);
    service.desired = to;
    this.#settle(service);
    return { current_route_count: service.active, target_count: to };
  }

  delete(service: Service): object {
    this.all.splice(this.all.indexOf(service), 1);
    return { success: true };
  }

  /** `duration`: seconds, or a text like `30m`; `valid_until`: seconds since 1970. */
  token(service: Service, { duration, valid_until: until }: Readonly<Record<string, unknown>>, nowMs: number): object {
    const lifeMs = typeof until === 'number' ? until * 1000 - nowMs : durationMs(duration);
    if (lifeMs === null || lifeMs <= 0) throw badParameters('duration or valid_until is required');
    const token = randomBytes(24).toString('hex');
    const untilMs = nowMs + Math.min(lifeMs, this.rules.maxTokenMs);
    this.#tokens.set(token, { serviceId: service.id, untilMs });
    this.issued += 1;
    return { token };
  }

  /** May the bearer of this token use the service now? */
  admits(service: Service, token: string, nowMs: number): boolean {
    const known = this.#tokens.get(token);
    return service.isPublic || (known?.serviceId === service.id && nowMs < known.untilMs);
  }

  /** All tokens are void from now on. */
  revokeTokens(): void {
    this.#tokens.clear();
  }

  stop(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }

  #demand(accessKey: string, more: number): void {
    const wished = this.all.filter((each) => each.accessKey === accessKey).reduce((sum, each) => sum + each.desired, 0);
    if (more > 0 && wished + more > this.rules.maxReplicas) {
      throw quotaExceeded(`at most ${this.rules.maxReplicas} replicas over all services`);
    }
  }

  #settle(service: Service): void {
    if (service.desired <= service.active) {
      service.active = service.desired;
      return;
    }
    const { provisionMs } = this.rules;
    if (provisionMs === null) return;
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      if (this.rules.fails === null) service.active = service.desired;
      else if (service.desired > 0) service.errors.push(this.rules.fails);
    }, provisionMs);
    this.#timers.add(timer);
  }
}

const isCount = (value: unknown): value is number => Number.isInteger(value) && (value as number) >= 0;

function durationMs(duration: unknown): number | null {
  if (typeof duration === 'number') return duration * 1000;
  const [, amount, unit] = /^(\d+)([smhd])$/.exec(String(duration)) ?? [];
  const units: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
  return amount === undefined ? null : Number(amount) * (units[unit ?? ''] ?? 0);
}
