/** The filter as chips. Each opens its choices with live counts: what choosing one would leave under the other filters. */

import { useQuery } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import { call } from "../api/client";
import type { Facets, Filter } from "../api/types";
import { bySite, chipOfCameras, chipOfDates, chipOfHours, chipOfIdentity, chipOfTags, toggled, toggledSite } from "../lib/filters";
import { number } from "../lib/format";
import { type Question, clearedFilter, emptyQuestion, filterOf, isFiltered, without } from "../lib/question";
import { allZones } from "../lib/zones";
import { Icon, type IconName } from "../parts/Icon";
import { Popover } from "../parts/Popover";
import { sentence } from "../api/client";
import { useHere } from "../session";
import { useWork } from "./workspace";

export function FilterBar({ onFilter }: { onFilter: () => void }) {
  const { question, update } = useWork();
  const { cameraName } = useHere();
  const change = (part: Partial<Question>) => {
    update(part);
    onFilter();
  };
  const none = emptyQuestion(question.zone);
  const further = Object.keys(question.further).length;
  return (
    <div className="chips" role="group" aria-label="Filters">
      <Chip
        name="Cameras"
        icon="camera"
        value={chipOfCameras(question, cameraName)}
        onClear={() => change({ cameras: none.cameras })}
      >
        <CameraChoice question={question} change={change} />
      </Chip>
      <Chip name="Dates" icon="calendar" value={chipOfDates(question)} onClear={() => change({ from: "", until: "" })}>
        <DateChoice question={question} change={change} />
      </Chip>
      <Chip name="Time of day" icon="clock" value={chipOfHours(question)} onClear={() => change({ hours: null })}>
        <HourChoice question={question} change={change} />
      </Chip>
      <Chip name="Tags" icon="tag" value={chipOfTags(question)} onClear={() => change({ tags: none.tags, notTags: none.notTags })}>
        <TagChoice question={question} change={change} />
      </Chip>
      <Chip name="Identity" icon="person" value={chipOfIdentity(question)} onClear={() => change({ identity: "any" })}>
        <IdentityChoice question={question} change={change} />
      </Chip>
      {further > 0 && (
        <span className="chip chosen">
          <span className="fixed">{further === 1 ? "1 further condition" : `${further} further conditions`}</span>
          <Remove name="further conditions" onClear={() => change({ further: {} })} />
        </span>
      )}
      {isFiltered(question) && (
        <button type="button" className="button quiet" onClick={() => change(clearedFilter(question))}>
          Clear all
        </button>
      )}
    </div>
  );
}

interface ChipProps {
  name: string;
  icon: IconName;
  value: string | null;
  onClear: () => void;
  children: ReactNode;
}

function Chip({ name, icon, value, onClear, children }: ChipProps) {
  return (
    <div className={value === null ? "chip" : "chip chosen"}>
      <Popover
        className="face"
        title={name}
        label={
          <>
            <Icon name={icon} />
            <span className="clip">{value === null ? name : <><span className="unseen">{name}: </span>{value}</>}</span>
            {value === null && <Icon name="chevron" />}
          </>
        }
      >
        {children}
      </Popover>
      {value !== null && <Remove name={name} onClear={onClear} />}
    </div>
  );
}

function Remove({ name, onClear }: { name: string; onClear: () => void }) {
  return (
    <button type="button" className="remove" aria-label={`Clear ${name}`} title={`Clear ${name}`} onClick={onClear}>
      <Icon name="close" />
    </button>
  );
}

interface ChoiceProps {
  question: Question;
  change: (part: Partial<Question>) => void;
}

/** Counts under everything but the field itself. */
function useFacets(question: Question, ...fields: (keyof Filter)[]) {
  const filter = without(filterOf(question), ...fields);
  return useQuery({
    queryKey: ["facets", filter, question.zone],
    queryFn: () => call<Facets>("/images/facets", { method: "POST", body: { filter, tz: question.zone, limit: 200 } }),
    placeholderData: (before) => before,
  });
}

function Counted({ count }: { count: number | undefined }) {
  return <span className="count figures">{count === undefined ? "" : number(count)}</span>;
}

function CameraChoice({ question, change }: ChoiceProps) {
  const { cameras } = useHere();
  const [wanted, setWanted] = useState("");
  const facets = useFacets(question, "camera_id");
  const sites = bySite(cameras, facets.data);
  const shown = sites
    .map((group) => ({ ...group, cameras: group.cameras.filter(({ name, id }) => `${name} ${id} ${group.site ?? ""}`.toLowerCase().includes(wanted.toLowerCase())) }))
    .filter((group) => group.cameras.length);
  return (
    <div className="choice">
      {cameras.length > 8 && (
        <input type="search" placeholder="Find a camera" aria-label="Find a camera" value={wanted} onChange={(event) => setWanted(event.target.value)} />
      )}
      {facets.isError && <p className="small muted">{sentence(facets.error)}</p>}
      {shown.map(({ site, cameras: members }) => {
        const ids = members.map(({ id }) => id);
        return (
          <fieldset key={site ?? ""}>
            <legend className={sites.length > 1 || site !== null ? undefined : "unseen"}>
              {sites.length > 1 || site !== null ? (
                <label className="check">
                  <input
                    type="checkbox"
                    checked={ids.every((id) => question.cameras.includes(id))}
                    onChange={() => change({ cameras: toggledSite(question.cameras, ids) })}
                  />
                  <strong className="grow">{site ?? "Without a site"}</strong>
                  <Counted count={facets.data && members.reduce((sum, { count }) => sum + count, 0)} />
                </label>
              ) : (
                "Cameras"
              )}
            </legend>
            {members.map(({ id, name, count }) => (
              <label className="check" key={id}>
                <input
                  type="checkbox"
                  checked={question.cameras.includes(id)}
                  onChange={() => change({ cameras: toggled(question.cameras, id) })}
                />
                <span className="grow clip" title={id}>
                  {name}
                </span>
                <Counted count={facets.data && count} />
              </label>
            ))}
          </fieldset>
        );
      })}
      {shown.length === 0 && <p className="small muted">{cameras.length ? "No camera is called that." : "There are no cameras yet."}</p>}
    </div>
  );
}

function DateChoice({ question, change }: ChoiceProps) {
  const facets = useFacets(question, "captured_at");
  const days = facets.data?.days.filter(({ value }) => value !== null) ?? [];
  const most = Math.max(1, ...days.map(({ count }) => count));
  return (
    <div className="choice">
      <label className="field">
        <span>From</span>
        <input type="datetime-local" value={question.from} max={question.until || undefined} onChange={(event) => change({ from: event.target.value })} />
      </label>
      <label className="field">
        <span>Until before</span>
        <input type="datetime-local" value={question.until} min={question.from || undefined} onChange={(event) => change({ until: event.target.value })} />
      </label>
      {days.length > 0 && (
        <div className="days" role="group" aria-label="One day">
          {days.map(({ value, count }) => {
            const from = `${value}T00:00`;
            const until = `${dayAfter(value ?? "")}T00:00`;
            const chosen = question.from === from && question.until === until;
            return (
              <button key={value} type="button" aria-pressed={chosen} onClick={() => change(chosen ? { from: "", until: "" } : { from, until })}>
                <span className="figures">{value}</span>
                <span className="level" aria-hidden="true">
                  <span style={{ width: `${(100 * count) / most}%` }} />
                </span>
                <Counted count={count} />
              </button>
            );
          })}
        </div>
      )}
      <Zone question={question} change={change} />
    </div>
  );
}

const dayAfter = (day: string) => new Date(Date.parse(`${day}T00:00Z`) + 86_400_000).toISOString().slice(0, 10);

function HourChoice({ question, change }: ChoiceProps) {
  const facets = useFacets(question, "time_of_day");
  const counts = new Map(facets.data?.hours.map(({ hour, count }) => [hour, count]));
  const most = Math.max(1, ...counts.values());
  const [hours, setHours] = useState(question.hours ?? { from: "", until: "" });
  const set = (part: Partial<typeof hours>) => {
    const next = { ...hours, ...part };
    setHours(next);
    if (next.from && next.until && next.from !== next.until) change({ hours: next });
    else if (!next.from && !next.until) change({ hours: null });
  };
  return (
    <div className="choice">
      <div className="row">
        <label className="field">
          <span>From</span>
          <input type="time" value={hours.from} onChange={(event) => set({ from: event.target.value })} />
        </label>
        <label className="field">
          <span>Until before</span>
          <input type="time" value={hours.until} onChange={(event) => set({ until: event.target.value })} />
        </label>
      </div>
      {hours.from > hours.until && hours.until && <p className="small muted">Over midnight</p>}
      {hours.from !== "" && hours.from === hours.until && <p className="small muted">These are the same: choose two different times.</p>}
      <div className="hours" role="img" aria-label="Images by hour of the day">
        {Array.from({ length: 24 }, (_, hour) => (
          <span key={hour} className={within(hour, question.hours) ? "in" : undefined}>
            <span style={{ height: `${(100 * (counts.get(hour) ?? 0)) / most}%` }} />
          </span>
        ))}
      </div>
      <div className="hours-scale tiny muted figures" aria-hidden="true">
        <span>0</span>
        <span>6</span>
        <span>12</span>
        <span>18</span>
        <span>24</span>
      </div>
      <Zone question={question} change={change} />
    </div>
  );
}

/** Whether an hour of the day is (partly) between two clock times, over midnight or not. */
function within(hour: number, hours: Question["hours"]): boolean {
  if (!hours) return false;
  const [from, until] = [hours.from, hours.until].map((clock) => Number(clock.slice(0, 2)) + Number(clock.slice(3)) / 60) as [number, number];
  return from < until ? hour + 1 > from && hour < until : hour + 1 > from || hour < until;
}

function Zone({ question, change }: ChoiceProps) {
  return (
    <label className="field">
      <span>By the clocks of</span>
      <select value={question.zone} onChange={(event) => change({ zone: event.target.value })}>
        {allZones().map((zone) => (
          <option key={zone}>{zone}</option>
        ))}
      </select>
    </label>
  );
}

function TagChoice({ question, change }: ChoiceProps) {
  const facets = useFacets(question, "tags");
  const counts = new Map(facets.data?.tags.map(({ value, count }) => [value ?? "", count]));
  const names = [...new Set([...question.tags, ...question.notTags, ...counts.keys()])].filter(Boolean);
  const set = (tag: string, to: "any" | "with" | "without") =>
    change({
      tags: to === "with" ? [...question.tags.filter((other) => other !== tag), tag] : question.tags.filter((other) => other !== tag),
      notTags: to === "without" ? [...question.notTags.filter((other) => other !== tag), tag] : question.notTags.filter((other) => other !== tag),
    });
  if (facets.data && names.length === 0) return <p className="small muted">No image has a tag.</p>;
  return (
    <ul className="choice">
      {names.map((tag) => (
        <li className="row" key={tag}>
          <span className="grow clip" title={tag}>
            {tag}
          </span>
          <Counted count={facets.data && (counts.get(tag) ?? 0)} />
          <span className="segments" role="group" aria-label={`Tag ${tag}`}>
            <button type="button" aria-pressed={question.tags.includes(tag)} onClick={() => set(tag, question.tags.includes(tag) ? "any" : "with")}>
              with
            </button>
            <button type="button" aria-pressed={question.notTags.includes(tag)} onClick={() => set(tag, question.notTags.includes(tag) ? "any" : "without")}>
              without
            </button>
          </span>
        </li>
      ))}
    </ul>
  );
}

function IdentityChoice({ question, change }: ChoiceProps) {
  const facets = useFacets(question, "identity");
  const counts = facets.data?.identity;
  const choices = [
    ["any", "Any", counts && counts.known + counts.unknown],
    ["known", "Known", counts?.known],
    ["unknown", "Unknown", counts?.unknown],
  ] as const;
  return (
    <fieldset className="choice">
      <legend className="unseen">Identity</legend>
      {choices.map(([value, name, count]) => (
        <label className="check" key={value}>
          <input type="radio" name="identity" checked={question.identity === value} onChange={() => change({ identity: value })} />
          <span className="grow">{name}</span>
          <Counted count={count} />
        </label>
      ))}
    </fieldset>
  );
}
