/** What the owner of this node said about a model that a cluster may start by itself when somebody asks for it. */
import { randomBytes } from 'node:crypto';
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import { MeshError } from '../../common/errors.ts';
import { checkServiceName, SERVICE_RESOURCES, type ServiceTemplate } from './model-services.ts';
import { type ResourceDemand, resourceDemand } from './resource-demand.ts';

export interface ProvisionRule {
  /** Slug of the cluster. */
  readonly cluster: string;
  /** As its service's `/v1/models` says it, and as clients ask for it. */
  readonly model: string;
  /** The service that serves it. */
  readonly service: string;
  /** How to make the service; null: it exists, and is only scaled. */
  readonly template: ServiceTemplate | null;
  /** Unused for so long, it is scaled to zero, milliseconds; null: never. */
  readonly idleMs: number | null;
  /** How long clients wait that cannot be told meanwhile that something happens, milliseconds. */
  readonly waitMs: number;
  /** Started only while fewer services of this node's rules run on the cluster. */
  readonly maxRunning: number;
}

/** What is absent has a default. */
export interface ProvisionWish extends Partial<Omit<ResourceDemand, 'image'>> {
  readonly cluster: string;
  readonly model: string;
  readonly image: string | null;
  /** Default: called like the model. */
  readonly folder?: string;
  /** An existing service, when there is no image; else the name of the new one. */
  readonly service?: string;
  readonly idleMs?: number | null;
  readonly waitMs?: number;
  readonly maxRunning?: number;
}

const IDLE_MS = 30 * 60_000;
const WAIT_MS = 60_000;
const MAX_RUNNING = 2;
const MODEL_ID = /^[^\p{C}]{1,256}$/u;
const SLUG = /^[a-z0-9]+(-[a-z0-9]+)*$/;
const LIMITS = { idleMs: [10, 2 ** 31 - 1], waitMs: [0, 900_000], maxRunning: [1, 64] } as const;

/** @throws MeshError `invalid_request` that names the field. */
export function provisionRule(wish: ProvisionWish): ProvisionRule {
  const { cluster, model, image, folder, service, idleMs, waitMs, maxRunning, ...demand } = wish;
  if (image === null && service === undefined) {
    const fix = 'give --image (and --folder) to have one made, or --service for one that exists';
    throw new MeshError('invalid_request', `How is a service for ${model} to be started? ${fix}`, { param: 'image' });
  }
  const name = service ?? newServiceName(model);
  return checkedRule({
    cluster,
    model,
    service: name,
    template:
      image === null
        ? null
        : {
            ...resourceDemand(image, demand, SERVICE_RESOURCES),
            ...{ name, folder: folder ?? model, replicas: 1, isPublic: false },
          },
    // What others made is theirs to end, unless somebody says otherwise.
    idleMs: idleMs === undefined ? (image === null ? null : IDLE_MS) : idleMs,
    waitMs: waitMs ?? WAIT_MS,
    maxRunning: maxRunning ?? MAX_RUNNING,
  });
}

/** `mesh-llama-3-70b-9f3c`: its last part is this rule's own, so that no two nodes take each other's service for theirs. */
function newServiceName(model: string): string {
  const words =
    model
      .toLowerCase()
      .split('/')
      .at(-1)
      ?.replace(/[^a-z0-9]+/g, '-') ?? '';
  const short = words.slice(0, 14).replace(/^-+|-+$/g, '') || 'model';
  return `mesh-${short}-${randomBytes(2).toString('hex')}`;
}

function checkedRule(rule: ProvisionRule): ProvisionRule {
  const { cluster, model, service, template, idleMs, waitMs, maxRunning } = rule;
  checkServiceName(service);
  if (!MODEL_ID.test(model)) throw invalid('model', 'must be 1 to 256 characters');
  if (!SLUG.test(cluster)) throw invalid('cluster', 'must be the slug of a cluster');
  if (template !== null && (template.folder === '' || template.name !== service)) throw invalid('folder', 'is missing');
  for (const [field, value] of [
    ['idleMs', idleMs ?? LIMITS.idleMs[0]],
    ['waitMs', waitMs],
    ['maxRunning', maxRunning],
  ] as const) {
    const [least, most] = LIMITS[field];
    if (!Number.isInteger(value) || value < least || value > most) {
      throw invalid(field, `must be a whole number from ${least} to ${most}`);
    }
  }
  return rule;
}

const invalid = (param: string, rule: string): MeshError =>
  new MeshError('invalid_request', `${param} ${rule}`, { param });

/** As it was written. @throws Error with a reason that may be shown. */
export function parseRule(json: unknown): ProvisionRule {
  if (!isRecord(json)) throw new Error('a rule is no object');
  const { cluster, model, service, template, idleMs, waitMs, maxRunning } = json;
  if (typeof cluster !== 'string' || typeof model !== 'string' || typeof service !== 'string') {
    throw new Error('a rule has no cluster, model or service');
  }
  if (!(idleMs === null || typeof idleMs === 'number')) throw new Error(`idleMs of ${model}`);
  if (typeof waitMs !== 'number' || typeof maxRunning !== 'number') throw new Error(`waitMs or maxRunning of ${model}`);
  const parsed = template === null ? null : parseTemplate(template, service);
  return checkedRule({ cluster, model, service, template: parsed, idleMs, waitMs, maxRunning });
}

function parseTemplate(json: unknown, name: string): ServiceTemplate {
  if (!isRecord(json) || typeof json['image'] !== 'string' || typeof json['folder'] !== 'string') {
    throw new Error(`the template of ${name} has no image or folder`);
  }
  const { image, folder, group, domain, scalingGroup, shmem } = json;
  const demand = resourceDemand(image, {
    resources: texts(json['resources'], name),
    environ: texts(json['environ'], name),
    ...(typeof group === 'string' && { group }),
    ...(typeof domain === 'string' && { domain }),
    ...(typeof scalingGroup === 'string' && { scalingGroup }),
    ...(typeof shmem === 'string' && { shmem }),
  });
  return { ...demand, name, folder, replicas: 1, isPublic: false };
}

function texts(json: unknown, name: string): Record<string, string> {
  const entries = isRecord(json) ? Object.entries(json) : [];
  if (entries.some(([, value]) => typeof value !== 'string')) throw new Error(`the template of ${name} has no texts`);
  return Object.fromEntries(entries.map(([key, value]) => [key, String(value)]));
}
