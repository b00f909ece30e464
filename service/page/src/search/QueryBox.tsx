/** The box: a description, what the person does not look like, a picture, and the balance between words and picture. */

import { useQuery } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { call } from "../api/client";
import type { Version } from "../api/types";
import { Icon } from "../parts/Icon";
import { CropDialog } from "./CropDialog";
import { pictureFrom } from "./picture";
import { useWork } from "./workspace";

export function QueryBox({ onFilter }: { onFilter: () => void }) {
  const { question, update, run, running, hint, setHint } = useWork();
  const { picture } = question;
  const file = useRef<HTMLInputElement>(null);
  const text = useRef<HTMLTextAreaElement>(null);
  const [negating, setNegating] = useState(false);
  const [cropping, setCropping] = useState(false);
  const version = useQuery({ queryKey: ["version"], queryFn: () => call<Version>("/version") });
  const reads = version.data?.has_text ?? true;
  const showNot = negating || question.not !== "";

  const take = async (files: FileList | null | undefined) => {
    const chosen = files?.[0];
    if (!chosen) return;
    const taken = await pictureFrom(chosen);
    if (typeof taken === "string") return setHint(taken);
    setHint(null);
    update({ picture: taken });
    if (text.current?.value.trim()) onFilter();
    else await run();
  };
  const takeNow = useRef(take);
  takeNow.current = take;

  useEffect(() => {
    const paste = (event: ClipboardEvent) => {
      if (event.clipboardData?.files.length) void takeNow.current(event.clipboardData.files);
    };
    document.addEventListener("paste", paste);
    return () => document.removeEventListener("paste", paste);
  }, []);
  const dragging = useDrop((files) => void takeNow.current(files));

  // On every description the box is as high as it needs, without a scroll bar in the middle of a sentence.
  useEffect(() => {
    const area = text.current;
    if (!area) return;
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight}px`;
  }, [question.text]);

  return (
    <>
      <div className="box">
        {picture && (
          <figure className="query-picture">
            {picture.kind === "gone" ? (
              <span className="gone" title="Your picture was not kept">
                <Icon name="picture" />
              </span>
            ) : (
              <button type="button" onClick={() => setCropping(true)} title="Choose the part that counts">
                <img src={picture.kind === "file" ? picture.url : thumbnail(picture.image)} alt="The picture to search with" />
                {picture.crop && (
                  <span className="cropped">
                    <Icon name="crop" />
                  </span>
                )}
              </button>
            )}
            <button
              type="button"
              className="remove"
              aria-label="Remove the picture"
              title="Remove the picture"
              onClick={() => {
                update({ picture: null });
                if (question.text.trim()) onFilter();
              }}
            >
              <Icon name="close" />
            </button>
          </figure>
        )}
        <div className="words">
          <label className="unseen" htmlFor="description">
            Describe the person
          </label>
          <textarea
            id="description"
            ref={text}
            rows={1}
            maxLength={512}
            value={question.text}
            placeholder={reads ? "Describe the person: clothes, colours, bag, shoes …" : "Drop a picture: the network in use reads no descriptions"}
            enterKeyHint="search"
            autoComplete="off"
            spellCheck={false}
            onChange={(event) => update({ text: event.target.value })}
            onKeyDown={(event) => {
              if (event.key === "Enter" && !event.shiftKey && !event.nativeEvent.isComposing) {
                event.preventDefault();
                void run();
              }
              if (event.key === "Escape") event.currentTarget.blur();
            }}
          />
          {showNot && (
            <label className="not">
              <span>not:</span>
              <input
                value={question.not}
                maxLength={512}
                aria-label="What the person does not look like"
                placeholder="a hat, a bicycle …"
                autoComplete="off"
                spellCheck={false}
                autoFocus={negating}
                onChange={(event) => update({ not: event.target.value })}
                onKeyDown={(event) => {
                  if (event.key === "Enter") {
                    event.preventDefault();
                    void run();
                  }
                }}
              />
              <button
                type="button"
                className="button quiet bare"
                aria-label="Remove what the person does not look like"
                onClick={() => {
                  setNegating(false);
                  update({ not: "" });
                  if (question.not && question.text) onFilter();
                }}
              >
                <Icon name="close" />
              </button>
            </label>
          )}
        </div>
        <div className="actions">
          {!showNot && (
            <button type="button" className="button quiet" onClick={() => setNegating(true)} title="Say what the person does not look like">
              not:
            </button>
          )}
          <button type="button" className="button quiet" onClick={() => file.current?.click()} title="Choose, drop or paste a picture">
            <Icon name="picture" />
            Picture
          </button>
          <button type="button" className="button primary" onClick={() => void run()} disabled={running && !question.text}>
            <Icon name="search" />
            Search
          </button>
        </div>
        <input
          ref={file}
          type="file"
          accept="image/*"
          hidden
          aria-label="Picture file"
          onChange={(event) => {
            void take(event.target.files);
            event.target.value = ""; // so that the same file can be chosen again
          }}
        />
      </div>
      {picture && question.text.trim() !== "" && (
        <label className="balance">
          <span>Words</span>
          <input
            type="range"
            min={0}
            max={100}
            step={5}
            value={Math.round(100 * (1 - question.share))}
            aria-label="Balance of words and picture"
            aria-valuetext={`${Math.round(100 * question.share)} % words, ${Math.round(100 * (1 - question.share))} % picture`}
            onChange={(event) => {
              update({ share: 1 - event.target.valueAsNumber / 100 });
              onFilter();
            }}
          />
          <span>Picture</span>
          <span className="muted figures tiny">
            {Math.round(100 * question.share)} : {Math.round(100 * (1 - question.share))}
          </span>
        </label>
      )}
      {hint && (
        <p className="hint" role="alert">
          {hint}
        </p>
      )}
      {cropping && picture && picture.kind !== "gone" && (
        <CropDialog
          picture={picture}
          onClose={() => setCropping(false)}
          onCrop={(crop) => {
            setCropping(false);
            update({ picture: { ...picture, crop } });
            void run();
          }}
        />
      )}
      {dragging && (
        <div className="drop" aria-hidden="true">
          <p>Drop the picture to search with it</p>
        </div>
      )}
    </>
  );
}

const thumbnail = (image: string) => `/api/v1/images/${image}/content?variant=thumb`;

/** Files dropped anywhere on the page; true while some are above it. */
export function useDrop(onFiles: (files: FileList) => void): boolean {
  const [above, setAbove] = useState(false);
  const handler = useRef(onFiles);
  handler.current = onFiles;
  useEffect(() => {
    let depth = 0; // dragenter and dragleave fire for every element on the way
    const hasFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    const enter = (event: DragEvent) => {
      if (hasFiles(event)) setAbove(++depth > 0);
    };
    const leave = (event: DragEvent) => {
      if (hasFiles(event)) setAbove(--depth > 0);
    };
    const over = (event: DragEvent) => event.preventDefault();
    const drop = (event: DragEvent) => {
      event.preventDefault();
      depth = 0;
      setAbove(false);
      if (event.dataTransfer?.files.length) handler.current(event.dataTransfer.files);
    };
    const listeners = [["dragenter", enter], ["dragleave", leave], ["dragover", over], ["drop", drop]] as const;
    for (const [name, listener] of listeners) document.addEventListener(name, listener);
    return () => {
      for (const [name, listener] of listeners) document.removeEventListener(name, listener);
    };
  }, []);
  return above;
}
