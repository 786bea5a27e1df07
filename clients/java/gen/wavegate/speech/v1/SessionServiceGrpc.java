package wavegate.speech.v1;

import static io.grpc.MethodDescriptor.generateFullMethodName;

/**
 * <pre>
 * Sees and changes live sessions of both kinds, from outside their own streams. Another caller's session,
 * an unknown one and an ended one are the same to it: NOT_FOUND, SESSION_NOT_FOUND.
 * </pre>
 */
@io.grpc.stub.annotations.GrpcGenerated
public final class SessionServiceGrpc {

  private SessionServiceGrpc() {}

  public static final java.lang.String SERVICE_NAME = "wavegate.speech.v1.SessionService";

  // Static method descriptors that strictly reflect the proto.
  private static volatile io.grpc.MethodDescriptor<wavegate.speech.v1.UpdateSettingsRequest,
      wavegate.speech.v1.UpdateSettingsResponse> getUpdateSettingsMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "UpdateSettings",
      requestType = wavegate.speech.v1.UpdateSettingsRequest.class,
      responseType = wavegate.speech.v1.UpdateSettingsResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.BIDI_STREAMING)
  public static io.grpc.MethodDescriptor<wavegate.speech.v1.UpdateSettingsRequest,
      wavegate.speech.v1.UpdateSettingsResponse> getUpdateSettingsMethod() {
    io.grpc.MethodDescriptor<wavegate.speech.v1.UpdateSettingsRequest, wavegate.speech.v1.UpdateSettingsResponse> getUpdateSettingsMethod;
    if ((getUpdateSettingsMethod = SessionServiceGrpc.getUpdateSettingsMethod) == null) {
      synchronized (SessionServiceGrpc.class) {
        if ((getUpdateSettingsMethod = SessionServiceGrpc.getUpdateSettingsMethod) == null) {
          SessionServiceGrpc.getUpdateSettingsMethod = getUpdateSettingsMethod =
              io.grpc.MethodDescriptor.<wavegate.speech.v1.UpdateSettingsRequest, wavegate.speech.v1.UpdateSettingsResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.BIDI_STREAMING)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "UpdateSettings"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  wavegate.speech.v1.UpdateSettingsRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  wavegate.speech.v1.UpdateSettingsResponse.getDefaultInstance()))
              .setSchemaDescriptor(new SessionServiceMethodDescriptorSupplier("UpdateSettings"))
              .build();
        }
      }
    }
    return getUpdateSettingsMethod;
  }

  private static volatile io.grpc.MethodDescriptor<wavegate.speech.v1.GetSessionRequest,
      wavegate.speech.v1.GetSessionResponse> getGetSessionMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "GetSession",
      requestType = wavegate.speech.v1.GetSessionRequest.class,
      responseType = wavegate.speech.v1.GetSessionResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<wavegate.speech.v1.GetSessionRequest,
      wavegate.speech.v1.GetSessionResponse> getGetSessionMethod() {
    io.grpc.MethodDescriptor<wavegate.speech.v1.GetSessionRequest, wavegate.speech.v1.GetSessionResponse> getGetSessionMethod;
    if ((getGetSessionMethod = SessionServiceGrpc.getGetSessionMethod) == null) {
      synchronized (SessionServiceGrpc.class) {
        if ((getGetSessionMethod = SessionServiceGrpc.getGetSessionMethod) == null) {
          SessionServiceGrpc.getGetSessionMethod = getGetSessionMethod =
              io.grpc.MethodDescriptor.<wavegate.speech.v1.GetSessionRequest, wavegate.speech.v1.GetSessionResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "GetSession"))
              .setSafe(true)
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  wavegate.speech.v1.GetSessionRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  wavegate.speech.v1.GetSessionResponse.getDefaultInstance()))
              .setSchemaDescriptor(new SessionServiceMethodDescriptorSupplier("GetSession"))
              .build();
        }
      }
    }
    return getGetSessionMethod;
  }

  private static volatile io.grpc.MethodDescriptor<wavegate.speech.v1.ListSessionsRequest,
      wavegate.speech.v1.ListSessionsResponse> getListSessionsMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "ListSessions",
      requestType = wavegate.speech.v1.ListSessionsRequest.class,
      responseType = wavegate.speech.v1.ListSessionsResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<wavegate.speech.v1.ListSessionsRequest,
      wavegate.speech.v1.ListSessionsResponse> getListSessionsMethod() {
    io.grpc.MethodDescriptor<wavegate.speech.v1.ListSessionsRequest, wavegate.speech.v1.ListSessionsResponse> getListSessionsMethod;
    if ((getListSessionsMethod = SessionServiceGrpc.getListSessionsMethod) == null) {
      synchronized (SessionServiceGrpc.class) {
        if ((getListSessionsMethod = SessionServiceGrpc.getListSessionsMethod) == null) {
          SessionServiceGrpc.getListSessionsMethod = getListSessionsMethod =
              io.grpc.MethodDescriptor.<wavegate.speech.v1.ListSessionsRequest, wavegate.speech.v1.ListSessionsResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "ListSessions"))
              .setSafe(true)
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  wavegate.speech.v1.ListSessionsRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  wavegate.speech.v1.ListSessionsResponse.getDefaultInstance()))
              .setSchemaDescriptor(new SessionServiceMethodDescriptorSupplier("ListSessions"))
              .build();
        }
      }
    }
    return getListSessionsMethod;
  }

  private static volatile io.grpc.MethodDescriptor<wavegate.speech.v1.CloseSessionRequest,
      wavegate.speech.v1.CloseSessionResponse> getCloseSessionMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "CloseSession",
      requestType = wavegate.speech.v1.CloseSessionRequest.class,
      responseType = wavegate.speech.v1.CloseSessionResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.UNARY)
  public static io.grpc.MethodDescriptor<wavegate.speech.v1.CloseSessionRequest,
      wavegate.speech.v1.CloseSessionResponse> getCloseSessionMethod() {
    io.grpc.MethodDescriptor<wavegate.speech.v1.CloseSessionRequest, wavegate.speech.v1.CloseSessionResponse> getCloseSessionMethod;
    if ((getCloseSessionMethod = SessionServiceGrpc.getCloseSessionMethod) == null) {
      synchronized (SessionServiceGrpc.class) {
        if ((getCloseSessionMethod = SessionServiceGrpc.getCloseSessionMethod) == null) {
          SessionServiceGrpc.getCloseSessionMethod = getCloseSessionMethod =
              io.grpc.MethodDescriptor.<wavegate.speech.v1.CloseSessionRequest, wavegate.speech.v1.CloseSessionResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.UNARY)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "CloseSession"))
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  wavegate.speech.v1.CloseSessionRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  wavegate.speech.v1.CloseSessionResponse.getDefaultInstance()))
              .setSchemaDescriptor(new SessionServiceMethodDescriptorSupplier("CloseSession"))
              .build();
        }
      }
    }
    return getCloseSessionMethod;
  }

  private static volatile io.grpc.MethodDescriptor<wavegate.speech.v1.GetTraceRequest,
      wavegate.speech.v1.GetTraceResponse> getGetTraceMethod;

  @io.grpc.stub.annotations.RpcMethod(
      fullMethodName = SERVICE_NAME + '/' + "GetTrace",
      requestType = wavegate.speech.v1.GetTraceRequest.class,
      responseType = wavegate.speech.v1.GetTraceResponse.class,
      methodType = io.grpc.MethodDescriptor.MethodType.SERVER_STREAMING)
  public static io.grpc.MethodDescriptor<wavegate.speech.v1.GetTraceRequest,
      wavegate.speech.v1.GetTraceResponse> getGetTraceMethod() {
    io.grpc.MethodDescriptor<wavegate.speech.v1.GetTraceRequest, wavegate.speech.v1.GetTraceResponse> getGetTraceMethod;
    if ((getGetTraceMethod = SessionServiceGrpc.getGetTraceMethod) == null) {
      synchronized (SessionServiceGrpc.class) {
        if ((getGetTraceMethod = SessionServiceGrpc.getGetTraceMethod) == null) {
          SessionServiceGrpc.getGetTraceMethod = getGetTraceMethod =
              io.grpc.MethodDescriptor.<wavegate.speech.v1.GetTraceRequest, wavegate.speech.v1.GetTraceResponse>newBuilder()
              .setType(io.grpc.MethodDescriptor.MethodType.SERVER_STREAMING)
              .setFullMethodName(generateFullMethodName(SERVICE_NAME, "GetTrace"))
              .setSafe(true)
              .setSampledToLocalTracing(true)
              .setRequestMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  wavegate.speech.v1.GetTraceRequest.getDefaultInstance()))
              .setResponseMarshaller(io.grpc.protobuf.ProtoUtils.marshaller(
                  wavegate.speech.v1.GetTraceResponse.getDefaultInstance()))
              .setSchemaDescriptor(new SessionServiceMethodDescriptorSupplier("GetTrace"))
              .build();
        }
      }
    }
    return getGetTraceMethod;
  }

  /**
   * Creates a new async stub that supports all call types for the service
   */
  public static SessionServiceStub newStub(io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<SessionServiceStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<SessionServiceStub>() {
        @java.lang.Override
        public SessionServiceStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new SessionServiceStub(channel, callOptions);
        }
      };
    return SessionServiceStub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports all types of calls on the service
   */
  public static SessionServiceBlockingV2Stub newBlockingV2Stub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<SessionServiceBlockingV2Stub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<SessionServiceBlockingV2Stub>() {
        @java.lang.Override
        public SessionServiceBlockingV2Stub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new SessionServiceBlockingV2Stub(channel, callOptions);
        }
      };
    return SessionServiceBlockingV2Stub.newStub(factory, channel);
  }

  /**
   * Creates a new blocking-style stub that supports unary and streaming output calls on the service
   */
  public static SessionServiceBlockingStub newBlockingStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<SessionServiceBlockingStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<SessionServiceBlockingStub>() {
        @java.lang.Override
        public SessionServiceBlockingStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new SessionServiceBlockingStub(channel, callOptions);
        }
      };
    return SessionServiceBlockingStub.newStub(factory, channel);
  }

  /**
   * Creates a new ListenableFuture-style stub that supports unary calls on the service
   */
  public static SessionServiceFutureStub newFutureStub(
      io.grpc.Channel channel) {
    io.grpc.stub.AbstractStub.StubFactory<SessionServiceFutureStub> factory =
      new io.grpc.stub.AbstractStub.StubFactory<SessionServiceFutureStub>() {
        @java.lang.Override
        public SessionServiceFutureStub newStub(io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
          return new SessionServiceFutureStub(channel, callOptions);
        }
      };
    return SessionServiceFutureStub.newStub(factory, channel);
  }

  /**
   * <pre>
   * Sees and changes live sessions of both kinds, from outside their own streams. Another caller's session,
   * an unknown one and an ended one are the same to it: NOT_FOUND, SESSION_NOT_FOUND.
   * </pre>
   */
  public interface AsyncService {

    /**
     * <pre>
     * Settings deltas to live sessions in, what became of them out. Each request acts on one session, and so
     * on one upstream WebSocket; one call may address many. A delta means the same as in the session's own
     * stream, is ordered with those by its arrival, and is acknowledged in both streams.
     * A delta that cannot be applied gets a REJECTED ack, also for an unknown session, and the call goes on; a
     * request without an `update_id` or a `session_id` ends the call with INVALID_ARGUMENT, FIELD_INVALID.
     * After half-close the call ends with OK as soon as every delta has its last ack and no session is
     * watched any more; cancelling it revokes nothing.
     * </pre>
     */
    default io.grpc.stub.StreamObserver<wavegate.speech.v1.UpdateSettingsRequest> updateSettings(
        io.grpc.stub.StreamObserver<wavegate.speech.v1.UpdateSettingsResponse> responseObserver) {
      return io.grpc.stub.ServerCalls.asyncUnimplementedStreamingCall(getUpdateSettingsMethod(), responseObserver);
    }

    /**
     * <pre>
     * One live session.
     * </pre>
     */
    default void getSession(wavegate.speech.v1.GetSessionRequest request,
        io.grpc.stub.StreamObserver<wavegate.speech.v1.GetSessionResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getGetSessionMethod(), responseObserver);
    }

    /**
     * <pre>
     * The caller's live sessions, on this gateway, the oldest first.
     * </pre>
     */
    default void listSessions(wavegate.speech.v1.ListSessionsRequest request,
        io.grpc.stub.StreamObserver<wavegate.speech.v1.ListSessionsResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getListSessionsMethod(), responseObserver);
    }

    /**
     * <pre>
     * Ends a live session, as `end_session` in its own stream would. Answers as soon as the session has been
     * told; its own stream gets `session_ended` with REASON_CLOSED_BY_OPERATOR when it is done.
     * </pre>
     */
    default void closeSession(wavegate.speech.v1.CloseSessionRequest request,
        io.grpc.stub.StreamObserver<wavegate.speech.v1.CloseSessionResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getCloseSessionMethod(), responseObserver);
    }

    /**
     * <pre>
     * The spans of a trace, or of all traces of a session, as far as this gateway still holds them: the newest
     * of all sessions, whether they were sampled or not. For those who have no collector at hand.
     * Only spans of the caller's own calls are there, also where another caller's call is in the same trace. A
     * span is there once it has ended, so those of a live session are not complete. Where none is held:
     * NOT_FOUND, TRACE_NOT_FOUND.
     * </pre>
     */
    default void getTrace(wavegate.speech.v1.GetTraceRequest request,
        io.grpc.stub.StreamObserver<wavegate.speech.v1.GetTraceResponse> responseObserver) {
      io.grpc.stub.ServerCalls.asyncUnimplementedUnaryCall(getGetTraceMethod(), responseObserver);
    }
  }

  /**
   * Base class for the server implementation of the service SessionService.
   * <pre>
   * Sees and changes live sessions of both kinds, from outside their own streams. Another caller's session,
   * an unknown one and an ended one are the same to it: NOT_FOUND, SESSION_NOT_FOUND.
   * </pre>
   */
  public static abstract class SessionServiceImplBase
      implements io.grpc.BindableService, AsyncService {

    @java.lang.Override public final io.grpc.ServerServiceDefinition bindService() {
      return SessionServiceGrpc.bindService(this);
    }
  }

  /**
   * A stub to allow clients to do asynchronous rpc calls to service SessionService.
   * <pre>
   * Sees and changes live sessions of both kinds, from outside their own streams. Another caller's session,
   * an unknown one and an ended one are the same to it: NOT_FOUND, SESSION_NOT_FOUND.
   * </pre>
   */
  public static final class SessionServiceStub
      extends io.grpc.stub.AbstractAsyncStub<SessionServiceStub> {
    private SessionServiceStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected SessionServiceStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new SessionServiceStub(channel, callOptions);
    }

    /**
     * <pre>
     * Settings deltas to live sessions in, what became of them out. Each request acts on one session, and so
     * on one upstream WebSocket; one call may address many. A delta means the same as in the session's own
     * stream, is ordered with those by its arrival, and is acknowledged in both streams.
     * A delta that cannot be applied gets a REJECTED ack, also for an unknown session, and the call goes on; a
     * request without an `update_id` or a `session_id` ends the call with INVALID_ARGUMENT, FIELD_INVALID.
     * After half-close the call ends with OK as soon as every delta has its last ack and no session is
     * watched any more; cancelling it revokes nothing.
     * </pre>
     */
    public io.grpc.stub.StreamObserver<wavegate.speech.v1.UpdateSettingsRequest> updateSettings(
        io.grpc.stub.StreamObserver<wavegate.speech.v1.UpdateSettingsResponse> responseObserver) {
      return io.grpc.stub.ClientCalls.asyncBidiStreamingCall(
          getChannel().newCall(getUpdateSettingsMethod(), getCallOptions()), responseObserver);
    }

    /**
     * <pre>
     * One live session.
     * </pre>
     */
    public void getSession(wavegate.speech.v1.GetSessionRequest request,
        io.grpc.stub.StreamObserver<wavegate.speech.v1.GetSessionResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getGetSessionMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * The caller's live sessions, on this gateway, the oldest first.
     * </pre>
     */
    public void listSessions(wavegate.speech.v1.ListSessionsRequest request,
        io.grpc.stub.StreamObserver<wavegate.speech.v1.ListSessionsResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getListSessionsMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * Ends a live session, as `end_session` in its own stream would. Answers as soon as the session has been
     * told; its own stream gets `session_ended` with REASON_CLOSED_BY_OPERATOR when it is done.
     * </pre>
     */
    public void closeSession(wavegate.speech.v1.CloseSessionRequest request,
        io.grpc.stub.StreamObserver<wavegate.speech.v1.CloseSessionResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncUnaryCall(
          getChannel().newCall(getCloseSessionMethod(), getCallOptions()), request, responseObserver);
    }

    /**
     * <pre>
     * The spans of a trace, or of all traces of a session, as far as this gateway still holds them: the newest
     * of all sessions, whether they were sampled or not. For those who have no collector at hand.
     * Only spans of the caller's own calls are there, also where another caller's call is in the same trace. A
     * span is there once it has ended, so those of a live session are not complete. Where none is held:
     * NOT_FOUND, TRACE_NOT_FOUND.
     * </pre>
     */
    public void getTrace(wavegate.speech.v1.GetTraceRequest request,
        io.grpc.stub.StreamObserver<wavegate.speech.v1.GetTraceResponse> responseObserver) {
      io.grpc.stub.ClientCalls.asyncServerStreamingCall(
          getChannel().newCall(getGetTraceMethod(), getCallOptions()), request, responseObserver);
    }
  }

  /**
   * A stub to allow clients to do synchronous rpc calls to service SessionService.
   * <pre>
   * Sees and changes live sessions of both kinds, from outside their own streams. Another caller's session,
   * an unknown one and an ended one are the same to it: NOT_FOUND, SESSION_NOT_FOUND.
   * </pre>
   */
  public static final class SessionServiceBlockingV2Stub
      extends io.grpc.stub.AbstractBlockingStub<SessionServiceBlockingV2Stub> {
    private SessionServiceBlockingV2Stub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected SessionServiceBlockingV2Stub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new SessionServiceBlockingV2Stub(channel, callOptions);
    }

    /**
     * <pre>
     * Settings deltas to live sessions in, what became of them out. Each request acts on one session, and so
     * on one upstream WebSocket; one call may address many. A delta means the same as in the session's own
     * stream, is ordered with those by its arrival, and is acknowledged in both streams.
     * A delta that cannot be applied gets a REJECTED ack, also for an unknown session, and the call goes on; a
     * request without an `update_id` or a `session_id` ends the call with INVALID_ARGUMENT, FIELD_INVALID.
     * After half-close the call ends with OK as soon as every delta has its last ack and no session is
     * watched any more; cancelling it revokes nothing.
     * </pre>
     */
    @io.grpc.ExperimentalApi("https://github.com/grpc/grpc-java/issues/10918")
    public io.grpc.stub.BlockingClientCall<wavegate.speech.v1.UpdateSettingsRequest, wavegate.speech.v1.UpdateSettingsResponse>
        updateSettings() {
      return io.grpc.stub.ClientCalls.blockingBidiStreamingCall(
          getChannel(), getUpdateSettingsMethod(), getCallOptions());
    }

    /**
     * <pre>
     * One live session.
     * </pre>
     */
    public wavegate.speech.v1.GetSessionResponse getSession(wavegate.speech.v1.GetSessionRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getGetSessionMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * The caller's live sessions, on this gateway, the oldest first.
     * </pre>
     */
    public wavegate.speech.v1.ListSessionsResponse listSessions(wavegate.speech.v1.ListSessionsRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getListSessionsMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Ends a live session, as `end_session` in its own stream would. Answers as soon as the session has been
     * told; its own stream gets `session_ended` with REASON_CLOSED_BY_OPERATOR when it is done.
     * </pre>
     */
    public wavegate.speech.v1.CloseSessionResponse closeSession(wavegate.speech.v1.CloseSessionRequest request) throws io.grpc.StatusException {
      return io.grpc.stub.ClientCalls.blockingV2UnaryCall(
          getChannel(), getCloseSessionMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * The spans of a trace, or of all traces of a session, as far as this gateway still holds them: the newest
     * of all sessions, whether they were sampled or not. For those who have no collector at hand.
     * Only spans of the caller's own calls are there, also where another caller's call is in the same trace. A
     * span is there once it has ended, so those of a live session are not complete. Where none is held:
     * NOT_FOUND, TRACE_NOT_FOUND.
     * </pre>
     */
    @io.grpc.ExperimentalApi("https://github.com/grpc/grpc-java/issues/10918")
    public io.grpc.stub.BlockingClientCall<?, wavegate.speech.v1.GetTraceResponse>
        getTrace(wavegate.speech.v1.GetTraceRequest request) {
      return io.grpc.stub.ClientCalls.blockingV2ServerStreamingCall(
          getChannel(), getGetTraceMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do limited synchronous rpc calls to service SessionService.
   * <pre>
   * Sees and changes live sessions of both kinds, from outside their own streams. Another caller's session,
   * an unknown one and an ended one are the same to it: NOT_FOUND, SESSION_NOT_FOUND.
   * </pre>
   */
  public static final class SessionServiceBlockingStub
      extends io.grpc.stub.AbstractBlockingStub<SessionServiceBlockingStub> {
    private SessionServiceBlockingStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected SessionServiceBlockingStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new SessionServiceBlockingStub(channel, callOptions);
    }

    /**
     * <pre>
     * One live session.
     * </pre>
     */
    public wavegate.speech.v1.GetSessionResponse getSession(wavegate.speech.v1.GetSessionRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getGetSessionMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * The caller's live sessions, on this gateway, the oldest first.
     * </pre>
     */
    public wavegate.speech.v1.ListSessionsResponse listSessions(wavegate.speech.v1.ListSessionsRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getListSessionsMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * Ends a live session, as `end_session` in its own stream would. Answers as soon as the session has been
     * told; its own stream gets `session_ended` with REASON_CLOSED_BY_OPERATOR when it is done.
     * </pre>
     */
    public wavegate.speech.v1.CloseSessionResponse closeSession(wavegate.speech.v1.CloseSessionRequest request) {
      return io.grpc.stub.ClientCalls.blockingUnaryCall(
          getChannel(), getCloseSessionMethod(), getCallOptions(), request);
    }

    /**
     * <pre>
     * The spans of a trace, or of all traces of a session, as far as this gateway still holds them: the newest
     * of all sessions, whether they were sampled or not. For those who have no collector at hand.
     * Only spans of the caller's own calls are there, also where another caller's call is in the same trace. A
     * span is there once it has ended, so those of a live session are not complete. Where none is held:
     * NOT_FOUND, TRACE_NOT_FOUND.
     * </pre>
     */
    public java.util.Iterator<wavegate.speech.v1.GetTraceResponse> getTrace(
        wavegate.speech.v1.GetTraceRequest request) {
      return io.grpc.stub.ClientCalls.blockingServerStreamingCall(
          getChannel(), getGetTraceMethod(), getCallOptions(), request);
    }
  }

  /**
   * A stub to allow clients to do ListenableFuture-style rpc calls to service SessionService.
   * <pre>
   * Sees and changes live sessions of both kinds, from outside their own streams. Another caller's session,
   * an unknown one and an ended one are the same to it: NOT_FOUND, SESSION_NOT_FOUND.
   * </pre>
   */
  public static final class SessionServiceFutureStub
      extends io.grpc.stub.AbstractFutureStub<SessionServiceFutureStub> {
    private SessionServiceFutureStub(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      super(channel, callOptions);
    }

    @java.lang.Override
    protected SessionServiceFutureStub build(
        io.grpc.Channel channel, io.grpc.CallOptions callOptions) {
      return new SessionServiceFutureStub(channel, callOptions);
    }

    /**
     * <pre>
     * One live session.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<wavegate.speech.v1.GetSessionResponse> getSession(
        wavegate.speech.v1.GetSessionRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getGetSessionMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * The caller's live sessions, on this gateway, the oldest first.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<wavegate.speech.v1.ListSessionsResponse> listSessions(
        wavegate.speech.v1.ListSessionsRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getListSessionsMethod(), getCallOptions()), request);
    }

    /**
     * <pre>
     * Ends a live session, as `end_session` in its own stream would. Answers as soon as the session has been
     * told; its own stream gets `session_ended` with REASON_CLOSED_BY_OPERATOR when it is done.
     * </pre>
     */
    public com.google.common.util.concurrent.ListenableFuture<wavegate.speech.v1.CloseSessionResponse> closeSession(
        wavegate.speech.v1.CloseSessionRequest request) {
      return io.grpc.stub.ClientCalls.futureUnaryCall(
          getChannel().newCall(getCloseSessionMethod(), getCallOptions()), request);
    }
  }

  private static final int METHODID_GET_SESSION = 0;
  private static final int METHODID_LIST_SESSIONS = 1;
  private static final int METHODID_CLOSE_SESSION = 2;
  private static final int METHODID_GET_TRACE = 3;
  private static final int METHODID_UPDATE_SETTINGS = 4;

  private static final class MethodHandlers<Req, Resp> implements
      io.grpc.stub.ServerCalls.UnaryMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.ServerStreamingMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.ClientStreamingMethod<Req, Resp>,
      io.grpc.stub.ServerCalls.BidiStreamingMethod<Req, Resp> {
    private final AsyncService serviceImpl;
    private final int methodId;

    MethodHandlers(AsyncService serviceImpl, int methodId) {
      this.serviceImpl = serviceImpl;
      this.methodId = methodId;
    }

    @java.lang.Override
    @java.lang.SuppressWarnings("unchecked")
    public void invoke(Req request, io.grpc.stub.StreamObserver<Resp> responseObserver) {
      switch (methodId) {
        case METHODID_GET_SESSION:
          serviceImpl.getSession((wavegate.speech.v1.GetSessionRequest) request,
              (io.grpc.stub.StreamObserver<wavegate.speech.v1.GetSessionResponse>) responseObserver);
          break;
        case METHODID_LIST_SESSIONS:
          serviceImpl.listSessions((wavegate.speech.v1.ListSessionsRequest) request,
              (io.grpc.stub.StreamObserver<wavegate.speech.v1.ListSessionsResponse>) responseObserver);
          break;
        case METHODID_CLOSE_SESSION:
          serviceImpl.closeSession((wavegate.speech.v1.CloseSessionRequest) request,
              (io.grpc.stub.StreamObserver<wavegate.speech.v1.CloseSessionResponse>) responseObserver);
          break;
        case METHODID_GET_TRACE:
          serviceImpl.getTrace((wavegate.speech.v1.GetTraceRequest) request,
              (io.grpc.stub.StreamObserver<wavegate.speech.v1.GetTraceResponse>) responseObserver);
          break;
        default:
          throw new AssertionError();
      }
    }

    @java.lang.Override
    @java.lang.SuppressWarnings("unchecked")
    public io.grpc.stub.StreamObserver<Req> invoke(
        io.grpc.stub.StreamObserver<Resp> responseObserver) {
      switch (methodId) {
        case METHODID_UPDATE_SETTINGS:
          return (io.grpc.stub.StreamObserver<Req>) serviceImpl.updateSettings(
              (io.grpc.stub.StreamObserver<wavegate.speech.v1.UpdateSettingsResponse>) responseObserver);
        default:
          throw new AssertionError();
      }
    }
  }

  public static final io.grpc.ServerServiceDefinition bindService(AsyncService service) {
    return io.grpc.ServerServiceDefinition.builder(getServiceDescriptor())
        .addMethod(
          getUpdateSettingsMethod(),
          io.grpc.stub.ServerCalls.asyncBidiStreamingCall(
            new MethodHandlers<
              wavegate.speech.v1.UpdateSettingsRequest,
              wavegate.speech.v1.UpdateSettingsResponse>(
                service, METHODID_UPDATE_SETTINGS)))
        .addMethod(
          getGetSessionMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              wavegate.speech.v1.GetSessionRequest,
              wavegate.speech.v1.GetSessionResponse>(
                service, METHODID_GET_SESSION)))
        .addMethod(
          getListSessionsMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              wavegate.speech.v1.ListSessionsRequest,
              wavegate.speech.v1.ListSessionsResponse>(
                service, METHODID_LIST_SESSIONS)))
        .addMethod(
          getCloseSessionMethod(),
          io.grpc.stub.ServerCalls.asyncUnaryCall(
            new MethodHandlers<
              wavegate.speech.v1.CloseSessionRequest,
              wavegate.speech.v1.CloseSessionResponse>(
                service, METHODID_CLOSE_SESSION)))
        .addMethod(
          getGetTraceMethod(),
          io.grpc.stub.ServerCalls.asyncServerStreamingCall(
            new MethodHandlers<
              wavegate.speech.v1.GetTraceRequest,
              wavegate.speech.v1.GetTraceResponse>(
                service, METHODID_GET_TRACE)))
        .build();
  }

  private static abstract class SessionServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoFileDescriptorSupplier, io.grpc.protobuf.ProtoServiceDescriptorSupplier {
    SessionServiceBaseDescriptorSupplier() {}

    @java.lang.Override
    public com.google.protobuf.Descriptors.FileDescriptor getFileDescriptor() {
      return wavegate.speech.v1.SessionServiceOuterClass.getDescriptor();
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.ServiceDescriptor getServiceDescriptor() {
      return getFileDescriptor().findServiceByName("SessionService");
    }
  }

  private static final class SessionServiceFileDescriptorSupplier
      extends SessionServiceBaseDescriptorSupplier {
    SessionServiceFileDescriptorSupplier() {}
  }

  private static final class SessionServiceMethodDescriptorSupplier
      extends SessionServiceBaseDescriptorSupplier
      implements io.grpc.protobuf.ProtoMethodDescriptorSupplier {
    private final java.lang.String methodName;

    SessionServiceMethodDescriptorSupplier(java.lang.String methodName) {
      this.methodName = methodName;
    }

    @java.lang.Override
    public com.google.protobuf.Descriptors.MethodDescriptor getMethodDescriptor() {
      return getServiceDescriptor().findMethodByName(methodName);
    }
  }

  private static volatile io.grpc.ServiceDescriptor serviceDescriptor;

  public static io.grpc.ServiceDescriptor getServiceDescriptor() {
    io.grpc.ServiceDescriptor result = serviceDescriptor;
    if (result == null) {
      synchronized (SessionServiceGrpc.class) {
        result = serviceDescriptor;
        if (result == null) {
          serviceDescriptor = result = io.grpc.ServiceDescriptor.newBuilder(SERVICE_NAME)
              .setSchemaDescriptor(new SessionServiceFileDescriptorSupplier())
              .addMethod(getUpdateSettingsMethod())
              .addMethod(getGetSessionMethod())
              .addMethod(getListSessionsMethod())
              .addMethod(getCloseSessionMethod())
              .addMethod(getGetTraceMethod())
              .build();
        }
      }
    }
    return result;
  }
}
