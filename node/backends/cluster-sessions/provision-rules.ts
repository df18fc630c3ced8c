/** The rules by which clusters may start models by themselves: none unless the owner wrote some. */
import { join } from 'node:path';
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import { MeshError } from '../../common/errors.ts';
import type { SharedFileComponents } from '../../storage/shared-file.ts';
import { SharedFileStore } from '../../storage/shared-file-store.ts';
import { type ProvisionRule, parseRule } from './provision-rule.ts';

type Rules = readonly ProvisionRule[];

const MAX_RULES = 128;
const MAX_FILE_BYTES = 1024 * 1024;

/** `<dataDir>/provisions.json`. Other processes may edit it while this one runs. All refusals leave it as it was. */
export class ProvisionRules extends SharedFileStore<Rules> {
  constructor(components: SharedFileComponents, { dataDir }: { readonly dataDir: string }) {
    super(components, {
      path: join(dataDir, 'provisions.json'),
      maxBytes: MAX_FILE_BYTES,
      empty: [],
      parse: parseRules,
      format: (rules) => ({ rules }),
    });
  }

  list(): Rules {
    return this.file.value;
  }

  /** Replaces the rule for the same model of the same cluster; its service keeps its name unless one is given. */
  async set(rule: ProvisionRule, { keepsName }: { readonly keepsName: boolean }): Promise<ProvisionRule> {
    let kept = rule;
    await this.file.edit((all) => {
      const before = all.find((each) => isSame(each, rule));
      const service = before?.service ?? rule.service;
      if (keepsName) kept = { ...rule, service, template: rule.template && { ...rule.template, name: service } };
      const others = all.filter((each) => !isSame(each, rule));
      if (others.length >= MAX_RULES)
        throw new MeshError('invalid_request', `There are ${MAX_RULES} rules: remove one`);
      return [...others, kept];
    });
    return kept;
  }

  /** @throws MeshError `not_found` that names what there is. */
  async remove(cluster: string, model: string): Promise<ProvisionRule> {
    let removed: ProvisionRule | undefined;
    await this.file.edit((all) => {
      removed = all.find((each) => isSame(each, { cluster, model }));
      if (removed !== undefined) return all.filter((each) => each !== removed);
      const models = all.filter((each) => each.cluster === cluster).map((each) => each.model);
      const there = models.length === 0 ? 'there is none for this cluster' : `there are: ${models.join(', ')}`;
      throw new MeshError('not_found', `No model "${model}" is started by itself; ${there}`);
    });
    if (removed === undefined) throw new MeshError('not_found', `No model "${model}" is started by itself`);
    return removed;
  }
}

const isSame = (a: Pick<ProvisionRule, 'cluster' | 'model'>, b: Pick<ProvisionRule, 'cluster' | 'model'>): boolean =>
  a.cluster === b.cluster && a.model === b.model;

function parseRules(json: unknown): Rules {
  const list = isRecord(json) ? json['rules'] : null;
  if (!Array.isArray(list)) throw new Error('it has no list "rules"');
  if (list.length > MAX_RULES) throw new Error(`it has more than ${MAX_RULES} rules`);
  const rules = list.map(parseRule);
  const keys = new Set(rules.map(({ cluster, model }) => `${cluster}/${model}`));
  if (keys.size !== rules.length) throw new Error('two rules are about the same model');
  return rules;
}
