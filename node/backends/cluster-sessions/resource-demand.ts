/** What a session or a service asks of a cluster: image, place and amounts. Shared by both. */
import { MeshError } from '../../common/errors.ts';

/** All as the manager takes it; null: the manager's own default. */
export interface ResourceDemand {
  readonly image: string;
  /** For example `{cpu: '4', mem: '32g', 'cuda.shares': '1'}`. */
  readonly resources: Readonly<Record<string, string>>;
  readonly environ: Readonly<Record<string, string>>;
  /** Project. */
  readonly group: string;
  readonly domain: string;
  readonly scalingGroup: string | null;
  /** Shared memory, for example `2g`. */
  readonly shmem: string | null;
}

/** Enough for a shell; a model wants more. */
const SESSION_RESOURCES = { cpu: '1', mem: '2g' };

/** @throws MeshError `invalid_request` that names the field. */
export function resourceDemand(
  image: string,
  wish: Partial<Omit<ResourceDemand, 'image'>>,
  defaults: Readonly<Record<string, string>> = SESSION_RESOURCES,
): ResourceDemand {
  if (!/^[\w./:@+-]{1,256}$/.test(image)) {
    throw new MeshError('invalid_request', 'An image is a name such as cr.backend.ai/stable/python:3.11-ubuntu22.04', {
      param: 'image',
    });
  }
  const { resources = {}, environ = {}, group = 'default', domain = 'default', ...rest } = wish;
  for (const [slot, amount] of Object.entries(resources)) {
    if (!/^[a-z][\w.-]{0,31}$/.test(slot) || !/^\d{1,9}(\.\d{1,6})?[kmgt]?$/i.test(amount)) {
      throw new MeshError('invalid_request', `A resource is SLOT=AMOUNT, for example cpu=4 or mem=32g, not ${slot}`, {
        param: 'resource',
      });
    }
  }
  const merged = { ...defaults, ...resources };
  return { image, resources: merged, environ, group, domain, scalingGroup: null, shmem: null, ...rest };
}
